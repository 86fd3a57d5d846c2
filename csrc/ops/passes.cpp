// activation_out, auxiliary_update_out, output_update_out: the fused elementwise passes of a sweep.
#include "ops/passes.h"

#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <string_view>

#include "ops/checks.h"
#include "ops/kernels.h"
#include "ops/registry.h"

namespace torchbcd {
namespace passes {
namespace {

at::TensorIterator over(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs) {
  at::TensorIteratorConfig config;
  config.resize_outputs(false);
  for (const at::Tensor& output : outputs) {
    config.add_owned_output(output);
  }
  for (const at::Tensor& input : inputs) {
    config.add_owned_const_input(input);
  }
  return config.build();
}

// The first columns of matrices whose rows a row kernel works on.
at::Tensor first_column(const at::Tensor& matrix) { return matrix.select(1, 0); }

}  // namespace

void activation(const at::Tensor& u, const functors::Activation& activation, const at::Tensor& out) {
  auto iterator = over({out}, {u});
  kernels::activation(iterator, activation);
}

void activation_derivative(const at::Tensor& u, const functors::Activation& activation,
                           const at::Tensor& out) {
  auto iterator = over({out}, {u});
  kernels::activation_derivative(iterator, activation);
}

void prox_activation(const at::Tensor& a, const at::Tensor& b, const functors::Activation& activation,
                     double gamma, const at::Tensor& out) {
  auto iterator = over({out}, {a, b});
  kernels::prox_activation(iterator, activation, gamma);
}

void prox_regularizer(const at::Tensor& x, const functors::Regularizer& regularizer, double t,
                      const at::Tensor& out) {
  auto iterator = over({out}, {x});
  kernels::prox_regularizer(iterator, regularizer, t);
}

void auxiliary_update(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                      const functors::Activation& activation, double gamma, double rho, double alpha,
                      const at::Tensor& u_out, const at::Tensor& residual_out) {
  auto iterator = over({u_out, residual_out}, {v, u, residual});
  kernels::auxiliary_update(iterator, activation, gamma, rho, alpha);
}

void output_centre(const at::Tensor& v, const at::Tensor& u, const functors::Activation& activation,
                   double gamma, double alpha, const at::Tensor& out) {
  auto iterator = over({out}, {v, u});
  kernels::output_centre(iterator, activation, gamma, alpha);
}

void loss_update(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                 const functors::Loss& loss, const functors::Regularizer& regularizer, double weight,
                 double curvature, const at::Tensor& out) {
  if (out.numel() == 0) {
    return;
  }
  if (std::holds_alternative<functors::CrossEntropyLoss>(loss)) {
    const at::Tensor rows = row_weight.expand({out.size(0), 1});
    auto iterator = over({first_column(out)}, {first_column(y), first_column(centre), first_column(rows)});
    const kernels::RowLayout layout{out.size(1), out.stride(1), y.stride(1), centre.stride(1)};
    kernels::cross_entropy_update(iterator, layout, regularizer, weight, curvature);
    return;
  }
  auto iterator = over({out}, {y, centre, row_weight});
  kernels::loss_update(iterator, loss, regularizer, weight, curvature);
}

at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const functors::Loss& loss) {
  if (std::holds_alternative<functors::CrossEntropyLoss>(loss)) {
    at::Tensor out = at::empty({v.size(0), 1}, v.options());
    if (v.numel() > 0) {
      auto iterator = over({first_column(out)}, {first_column(y), first_column(v)});
      kernels::cross_entropy(iterator, {v.size(1), 0, y.stride(1), v.stride(1)});
    }
    return out;
  }
  at::Tensor entries = at::empty_like(v);
  auto iterator = over({entries}, {y, v});
  kernels::loss(iterator, loss);
  return entries.sum(1, /*keepdim=*/true);
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
  checks::is_matrix(op, {"y", y}, "(n, d)");
  checks::has_shape(op, {"v", v}, y.sizes(), "that of y");
  checks::has_shape(op, {"u", u}, y.sizes(), "that of y");
  checks::has_shape(op, {"v_out", v_out}, y.sizes(), "that of y");
  checks::positive(op, "weight", weight);
  checks::positive(op, "gamma", gamma);
  checks::non_negative(op, "alpha", alpha);
  passes::output_centre(v, u, activation_from(activation, parameters), gamma, alpha, v_out);
  const at::Tensor row_weight = at::empty({1, 1}, v.options()).fill_(1);
  passes::loss_update(y, v_out, row_weight, loss_from(loss), {}, weight, gamma + alpha, v_out);
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
      "auxiliary_update_out(Tensor v, Tensor u, Tensor residual, str activation, float[] parameters, "
      "float gamma, float rho, float alpha, *, Tensor(a!) u_out, Tensor(b!) residual_out) -> ()");
  m.def(
      "output_update_out(Tensor y, Tensor v, Tensor u, str loss, str activation, float[] parameters, "
      "float weight, float gamma, float alpha, *, Tensor(a!) v_out) -> ()");
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
