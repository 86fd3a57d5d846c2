// prox_<activation>, prox_<loss>_loss, prox_l1, prox_l2, prox_elastic_net, project_nonnegative, project_box:
// proximal operators, entry by entry, and prox_cross_entropy_loss and prox_row_hinge_loss, row by row.
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <string>

#include "doors/operators/functions.h"
#include "kernels/checks.h"
#include "kernels/passes.h"

namespace torchbcd::operators {
namespace {

void check_pair(const std::string& op, const checks::Argument& a, const checks::Argument& b, double gamma) {
  checks::same_floating_kind(op.c_str(), {a, b});
  checks::broadcastable(op.c_str(), a, b);
  checks::positive(op.c_str(), "gamma", gamma);
}

void check_matrix(const char* op, const Tensor& b, double gamma) {
  checks::same_floating_kind(op, {{"b", b}});
  checks::is_matrix(op, {"b", b}, "(n, C)");
  checks::positive(op, "gamma", gamma);
}

Tensor prox_of_rows(const functors::AnyLoss& loss, const Tensor& y, const Tensor& b, double gamma) {
  const Tensor out = at::empty(b.sizes(), b.options());
  passes::loss_update(y, b, at::ones({1, 1}, b.options()), loss, {}, 1, gamma, out);
  return out;
}

Tensor prox_of_regularizer(const char* op, const Tensor& x, const Regularizer& regularizer) {
  checks::same_floating_kind(op, {{"x", x}});
  return passes::prox_regularizer(x, regularizer, 1);
}

}  // namespace

Tensor prox_of_activation(const char* name, c10::ArrayRef<double> parameters, const Tensor& a,
                          const Tensor& b, double gamma) {
  const functors::AnyActivation activation = activation_from(name, parameters);
  check_pair(std::string("torchbcd::prox_") + name, {"a", a}, {"b", b}, gamma);
  return passes::prox_activation(a, b, activation, gamma);
}

Tensor prox_of_loss(const char* name, const functors::AnyLoss& loss, const Tensor& y, const Tensor& b,
                    double gamma) {
  check_pair(std::string("torchbcd::prox_") + name + "_loss", {"y", y}, {"b", b}, gamma);
  return passes::prox_loss(y, b, loss, gamma);
}

Tensor prox_polynomial_of(const Tensor& a, const Tensor& b, double gamma,
                          c10::ArrayRef<double> coefficients) {
  return prox_of_activation(functors::Polynomial::name, coefficients, a, b, gamma);
}

Tensor prox_quantile(const Tensor& y, const Tensor& b, double gamma, double tau) {
  functors::QuantileLoss loss;
  const char* must = loss.set(&tau, 1);
  TORCH_CHECK_VALUE(must == nullptr, "torchbcd::prox_quantile_loss: ", must, " (got ", tau, ")");
  return prox_of_loss(functors::QuantileLoss::name, loss, y, b, gamma);
}

Tensor prox_cross_entropy(const Tensor& target, const Tensor& b, double gamma) {
  constexpr const char* op = "torchbcd::prox_cross_entropy_loss";
  check_matrix(op, b, gamma);
  return prox_of_rows(functors::CrossEntropyLoss{}, class_probabilities(op, "target", target, b), b, gamma);
}

Tensor prox_row_hinge(const Tensor& y, const Tensor& b, double gamma) {
  constexpr const char* op = "torchbcd::prox_row_hinge_loss";
  check_matrix(op, b, gamma);
  checks::same_floating_kind(op, {{"b", b}, {"y", y}});
  checks::has_shape(op, {"y", y}, b.sizes(), "that of b");
  return prox_of_rows(functors::RowHingeLoss{}, y, b, gamma);
}

Tensor prox_l1_of(const Tensor& x, double t) {
  constexpr const char* op = "torchbcd::prox_l1";
  checks::non_negative(op, "t", t);
  return prox_of_regularizer(op, x, {.l1 = t});
}

Tensor prox_l2_of(const Tensor& x, double t) {
  constexpr const char* op = "torchbcd::prox_l2";
  checks::non_negative(op, "t", t);
  return prox_of_regularizer(op, x, {.l2 = t});
}

Tensor prox_elastic_net_of(const Tensor& x, double t1, double t2) {
  constexpr const char* op = "torchbcd::prox_elastic_net";
  checks::non_negative(op, "t1", t1);
  checks::non_negative(op, "t2", t2);
  return prox_of_regularizer(op, x, {.l1 = t1, .l2 = t2});
}

Tensor project_nonnegative_of(const Tensor& x) {
  return prox_of_regularizer("torchbcd::project_nonnegative", x, {.low = 0});
}

Tensor project_box_of(const Tensor& x, double lo, double hi) {
  constexpr const char* op = "torchbcd::project_box";
  TORCH_CHECK_VALUE(lo <= hi, op, ": lo must be at most hi (got ", lo, " and ", hi, ")");
  return prox_of_regularizer(op, x, {.low = lo, .high = hi});
}

}  // namespace torchbcd::operators
