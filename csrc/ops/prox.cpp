// prox_<activation>, prox_<loss>_loss, prox_l1, prox_l2, prox_elastic_net, project_nonnegative, project_box:
// proximal operators, entry by entry, and prox_cross_entropy_loss, row by row.
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/kernels.h"
#include "ops/passes.h"
#include "ops/registry.h"
#include "torchbcd/functional.h"

namespace torchbcd {
namespace {

template <typename KernelType, typename Functor>
at::Tensor prox(const std::string& op, KernelType& kernel, const Functor& functor, const checks::Argument& a,
                const checks::Argument& b, double gamma) {
  checks::same_floating_kind(op.c_str(), {a, b});
  checks::broadcastable(op.c_str(), a, b);
  checks::positive(op.c_str(), "gamma", gamma);
  at::Tensor out;
  auto iterator =
      at::TensorIteratorConfig().add_output(out).add_const_input(a.tensor).add_const_input(b.tensor).build();
  kernel(iterator, functor, gamma);
  return iterator.output();
}

template <typename Functor>
at::Tensor prox_activation_kernel(const at::Tensor& a, const at::Tensor& b, double gamma) {
  return prox(std::string("torchbcd::prox_") + Functor::name, kernels::prox_activation, Functor{}, {"a", a},
              {"b", b}, gamma);
}

at::Tensor prox_leaky_relu_kernel(const at::Tensor& a, const at::Tensor& b, double gamma,
                                  double negative_slope) {
  return prox("torchbcd::prox_leaky_relu", kernels::prox_activation,
              activation_from("leaky_relu", {negative_slope}), {"a", a}, {"b", b}, gamma);
}

at::Tensor prox_hardtanh_kernel(const at::Tensor& a, const at::Tensor& b, double gamma, double min_val,
                                double max_val) {
  return prox("torchbcd::prox_hardtanh", kernels::prox_activation,
              activation_from("hardtanh", {min_val, max_val}), {"a", a}, {"b", b}, gamma);
}

at::Tensor prox_polynomial_kernel(const at::Tensor& a, const at::Tensor& b, double gamma,
                                  c10::ArrayRef<double> coefficients) {
  return prox("torchbcd::prox_polynomial", kernels::prox_activation,
              activation_from("polynomial", coefficients), {"a", a}, {"b", b}, gamma);
}

template <typename Functor>
at::Tensor prox_loss_kernel(const at::Tensor& y, const at::Tensor& b, double gamma) {
  return prox(std::string("torchbcd::prox_") + Functor::name + "_loss", kernels::prox_loss, Functor{},
              {"y", y}, {"b", b}, gamma);
}

at::Tensor prox_cross_entropy_loss_kernel(const at::Tensor& target, const at::Tensor& b, double gamma) {
  constexpr const char* op = "torchbcd::prox_cross_entropy_loss";
  checks::same_floating_kind(op, {{"b", b}});
  checks::is_matrix(op, {"b", b}, "(n, C)");
  checks::positive(op, "gamma", gamma);
  const at::Tensor probabilities = checks::class_probabilities(op, "target", target, b);
  const at::Tensor out = at::empty(b.sizes(), b.options());
  const at::Tensor row_weight = at::ones({1, 1}, b.options());
  passes::loss_update(probabilities, b, row_weight, functors::CrossEntropyLoss{}, {}, 1, gamma, out);
  return out;
}

at::Tensor prox_regularizer(const char* op, const at::Tensor& x, const functors::Regularizer& regularizer) {
  checks::same_floating_kind(op, {{"x", x}});
  at::Tensor out;
  auto iterator = at::TensorIteratorConfig().add_output(out).add_const_input(x).build();
  kernels::prox_regularizer(iterator, regularizer, 1);
  return iterator.output();
}

at::Tensor prox_l1_kernel(const at::Tensor& x, double t) {
  constexpr const char* op = "torchbcd::prox_l1";
  checks::non_negative(op, "t", t);
  return prox_regularizer(op, x, {.l1 = t});
}

at::Tensor prox_l2_kernel(const at::Tensor& x, double t) {
  constexpr const char* op = "torchbcd::prox_l2";
  checks::non_negative(op, "t", t);
  return prox_regularizer(op, x, {.l2 = t});
}

at::Tensor prox_elastic_net_kernel(const at::Tensor& x, double t1, double t2) {
  constexpr const char* op = "torchbcd::prox_elastic_net";
  checks::non_negative(op, "t1", t1);
  checks::non_negative(op, "t2", t2);
  return prox_regularizer(op, x, {.l1 = t1, .l2 = t2});
}

at::Tensor project_nonnegative_kernel(const at::Tensor& x) {
  return prox_regularizer("torchbcd::project_nonnegative", x, {.low = 0});
}

at::Tensor project_box_kernel(const at::Tensor& x, double lo, double hi) {
  constexpr const char* op = "torchbcd::project_box";
  TORCH_CHECK_VALUE(lo <= hi, op, ": lo must be at most hi (got ", lo, " and ", hi, ")");
  return prox_regularizer(op, x, {.low = lo, .high = hi});
}

void implement(torch::Library& m) {
  m.impl("prox_relu", &prox_activation_kernel<functors::ReLU>);
  m.impl("prox_identity", &prox_activation_kernel<functors::Identity>);
  m.impl("prox_sigmoid", &prox_activation_kernel<functors::Sigmoid>);
  m.impl("prox_tanh", &prox_activation_kernel<functors::Tanh>);
  m.impl("prox_hardsigmoid", &prox_activation_kernel<functors::HardSigmoid>);
  m.impl("prox_sign", &prox_activation_kernel<functors::Sign>);
  m.impl("prox_leaky_relu", &prox_leaky_relu_kernel);
  m.impl("prox_hardtanh", &prox_hardtanh_kernel);
  m.impl("prox_polynomial", &prox_polynomial_kernel);
  m.impl("prox_squared_loss", &prox_loss_kernel<functors::SquaredLoss>);
  m.impl("prox_hinge_loss", &prox_loss_kernel<functors::HingeLoss>);
  m.impl("prox_logistic_loss", &prox_loss_kernel<functors::LogisticLoss>);
  m.impl("prox_exponential_loss", &prox_loss_kernel<functors::ExponentialLoss>);
  m.impl("prox_cross_entropy_loss", &prox_cross_entropy_loss_kernel);
  m.impl("prox_l1", &prox_l1_kernel);
  m.impl("prox_l2", &prox_l2_kernel);
  m.impl("prox_elastic_net", &prox_elastic_net_kernel);
  m.impl("project_nonnegative", &project_nonnegative_kernel);
  m.impl("project_box", &project_box_kernel);
}

}  // namespace

#define TORCHBCD_FRONT(NAME, PARAMETERS, ARGUMENTS)                                  \
  at::Tensor NAME PARAMETERS {                                                       \
    static const auto op = find_operator<at::Tensor PARAMETERS>("torchbcd::" #NAME); \
    return op.call ARGUMENTS;                                                        \
  }

TORCHBCD_FRONT(prox_relu, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_identity, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_sigmoid, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_tanh, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_hardsigmoid, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_sign, (const at::Tensor& a, const at::Tensor& b, double gamma), (a, b, gamma))
TORCHBCD_FRONT(prox_leaky_relu,
               (const at::Tensor& a, const at::Tensor& b, double gamma, double negative_slope),
               (a, b, gamma, negative_slope))
TORCHBCD_FRONT(prox_hardtanh,
               (const at::Tensor& a, const at::Tensor& b, double gamma, double min_val, double max_val),
               (a, b, gamma, min_val, max_val))
TORCHBCD_FRONT(prox_polynomial,
               (const at::Tensor& a, const at::Tensor& b, double gamma, c10::ArrayRef<double> coefficients),
               (a, b, gamma, coefficients))
TORCHBCD_FRONT(prox_squared_loss, (const at::Tensor& y, const at::Tensor& b, double gamma), (y, b, gamma))
TORCHBCD_FRONT(prox_hinge_loss, (const at::Tensor& y, const at::Tensor& b, double gamma), (y, b, gamma))
TORCHBCD_FRONT(prox_logistic_loss, (const at::Tensor& y, const at::Tensor& b, double gamma), (y, b, gamma))
TORCHBCD_FRONT(prox_exponential_loss, (const at::Tensor& y, const at::Tensor& b, double gamma), (y, b, gamma))
TORCHBCD_FRONT(prox_cross_entropy_loss, (const at::Tensor& target, const at::Tensor& b, double gamma),
               (target, b, gamma))
TORCHBCD_FRONT(prox_l1, (const at::Tensor& x, double t), (x, t))
TORCHBCD_FRONT(prox_l2, (const at::Tensor& x, double t), (x, t))
TORCHBCD_FRONT(prox_elastic_net, (const at::Tensor& x, double t1, double t2), (x, t1, t2))
TORCHBCD_FRONT(project_nonnegative, (const at::Tensor& x), (x))
TORCHBCD_FRONT(project_box, (const at::Tensor& x, double lo, double hi), (x, lo, hi))

#undef TORCHBCD_FRONT

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  m.def("prox_relu(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_identity(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_sigmoid(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_tanh(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_hardsigmoid(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_sign(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_leaky_relu(Tensor a, Tensor b, float gamma, float negative_slope=0.01) -> Tensor");
  m.def("prox_hardtanh(Tensor a, Tensor b, float gamma, float min_val=-1.0, float max_val=1.0) -> Tensor");
  m.def("prox_polynomial(Tensor a, Tensor b, float gamma, float[] coefficients) -> Tensor");
  m.def("prox_squared_loss(Tensor y, Tensor b, float gamma) -> Tensor");
  m.def("prox_hinge_loss(Tensor y, Tensor b, float gamma) -> Tensor");
  m.def("prox_logistic_loss(Tensor y, Tensor b, float gamma) -> Tensor");
  m.def("prox_exponential_loss(Tensor y, Tensor b, float gamma) -> Tensor");
  m.def("prox_cross_entropy_loss(Tensor target, Tensor b, float gamma) -> Tensor");
  m.def("prox_l1(Tensor x, float t) -> Tensor");
  m.def("prox_l2(Tensor x, float t) -> Tensor");
  m.def("prox_elastic_net(Tensor x, float t1, float t2) -> Tensor");
  m.def("project_nonnegative(Tensor x) -> Tensor");
  m.def("project_box(Tensor x, float lo, float hi) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const char* op :
       {"prox_relu", "prox_identity", "prox_sigmoid", "prox_tanh", "prox_hardsigmoid", "prox_sign",
        "prox_leaky_relu", "prox_hardtanh", "prox_polynomial", "prox_squared_loss", "prox_hinge_loss",
        "prox_logistic_loss", "prox_exponential_loss", "prox_cross_entropy_loss", "prox_l1", "prox_l2",
        "prox_elastic_net", "project_nonnegative", "project_box"}) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
