// activation_out, auxiliary_update_out, output_update_out: the fused elementwise passes of a sweep.
#include "ops/passes.h"

#include <ATen/TensorIterator.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <string_view>

#include "ops/checks.h"
#include "ops/kernels.h"
#include "ops/registry.h"

namespace torchbcd {
namespace passes {

void activation(const at::Tensor& u, const functors::Activation& activation, const at::Tensor& out) {
  auto iterator = at::TensorIteratorConfig().resize_outputs(false).add_output(out).add_const_input(u).build();
  kernels::activation(iterator, activation);
}

void loss(const at::Tensor& y, const at::Tensor& v, const functors::Loss& loss, const at::Tensor& out) {
  auto iterator = at::TensorIteratorConfig()
                      .resize_outputs(false)
                      .add_output(out)
                      .add_const_input(y)
                      .add_const_input(v)
                      .build();
  kernels::loss(iterator, loss);
}

void auxiliary_update(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                      const functors::Activation& activation, double gamma, double rho, double alpha,
                      const at::Tensor& u_out, const at::Tensor& residual_out) {
  auto iterator = at::TensorIteratorConfig()
                      .resize_outputs(false)
                      .add_output(u_out)
                      .add_output(residual_out)
                      .add_const_input(v)
                      .add_const_input(u)
                      .add_const_input(residual)
                      .build();
  kernels::auxiliary_update(iterator, activation, gamma, rho, alpha);
}

void output_update(const at::Tensor& y, const at::Tensor& v, const at::Tensor& u, const functors::Loss& loss,
                   const functors::Activation& activation, double weight, double gamma, double alpha,
                   const at::Tensor& v_out) {
  auto iterator = at::TensorIteratorConfig()
                      .resize_outputs(false)
                      .add_output(v_out)
                      .add_const_input(y)
                      .add_const_input(v)
                      .add_const_input(u)
                      .build();
  kernels::output_update(iterator, loss, activation, weight, gamma, alpha);
}

}  // namespace passes

namespace {

void activation_out(const at::Tensor& u, std::string_view activation, c10::ArrayRef<double> parameters,
                    at::Tensor& out) {
  constexpr const char* op = "torchbcd::activation_out";
  checks::same_floating_kind(op, {{"u", u}, {"out", out}});
  checks::has_shape(op, {"out", out}, u.sizes(), "that of u");
  passes::activation(u, activation_from(activation, parameters), out);
}

void auxiliary_update_out(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                          std::string_view activation, c10::ArrayRef<double> parameters, double gamma,
                          double rho, double alpha, at::Tensor& u_out, at::Tensor& residual_out) {
  constexpr const char* op = "torchbcd::auxiliary_update_out";
  checks::same_floating_kind(
      op, {{"v", v}, {"u", u}, {"residual", residual}, {"u_out", u_out}, {"residual_out", residual_out}});
  checks::has_shape(op, {"u", u}, v.sizes(), "that of v");
  checks::has_shape(op, {"residual", residual}, v.sizes(), "that of v");
  checks::has_shape(op, {"u_out", u_out}, v.sizes(), "that of v");
  checks::has_shape(op, {"residual_out", residual_out}, v.sizes(), "that of v");
  checks::positive(op, "gamma", gamma);
  checks::positive(op, "rho", rho);
  checks::non_negative(op, "alpha", alpha);
  passes::auxiliary_update(v, u, residual, activation_from(activation, parameters), gamma, rho, alpha, u_out,
                           residual_out);
}

void output_update_out(const at::Tensor& y, const at::Tensor& v, const at::Tensor& u, std::string_view loss,
                       std::string_view activation, c10::ArrayRef<double> parameters, double weight,
                       double gamma, double alpha, at::Tensor& v_out) {
  constexpr const char* op = "torchbcd::output_update_out";
  checks::same_floating_kind(op, {{"y", y}, {"v", v}, {"u", u}, {"v_out", v_out}});
  checks::has_shape(op, {"v", v}, y.sizes(), "that of y");
  checks::has_shape(op, {"u", u}, y.sizes(), "that of y");
  checks::has_shape(op, {"v_out", v_out}, y.sizes(), "that of y");
  checks::positive(op, "weight", weight);
  checks::positive(op, "gamma", gamma);
  checks::non_negative(op, "alpha", alpha);
  passes::output_update(y, v, u, loss_from(loss), activation_from(activation, parameters), weight, gamma,
                        alpha, v_out);
}

void implement(torch::Library& m) {
  m.impl("activation_out", &activation_out);
  m.impl("auxiliary_update_out", &auxiliary_update_out);
  m.impl("output_update_out", &output_update_out);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  m.def("activation_out(Tensor u, str activation, float[] parameters, *, Tensor(a!) out) -> ()");
  m.def(
      "auxiliary_update_out(Tensor v, Tensor u, Tensor residual, str activation, "
      "float[] parameters, float gamma, float rho, float alpha, *, Tensor(a!) u_out, "
      "Tensor(b!) residual_out) -> ()");
  m.def(
      "output_update_out(Tensor y, Tensor v, Tensor u, str loss, str activation, "
      "float[] parameters, float weight, float gamma, float alpha, *, Tensor(a!) v_out) -> ()");
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const char* op : {"activation_out", "auxiliary_update_out", "output_update_out"}) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
