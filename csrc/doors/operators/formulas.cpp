// Activations, losses and regularisers as Python's diagnostics and losses ask for them.
#include <ATen/ops/empty.h>

#include "doors/operators/functions.h"
#include "kernels/checks.h"
#include "kernels/output_loss.h"
#include "kernels/passes.h"

namespace torchbcd::operators {
namespace {

Tensor new_like(const Tensor& t) { return at::empty(t.sizes(), t.options()); }

void check_rows(const char* op, const Tensor& y, const Tensor& v) {
  checks::same_floating_kind(op, {{"v", v}, {"y", y}});
  checks::is_matrix(op, {"v", v}, "(n, d)");
  checks::has_shape(op, {"y", y}, v.sizes(), "that of v");
}

// Columns that are no more than a loss of several parts has; of one loss any are.
OutputLoss loss_of_columns(const char* op, std::string_view text, const Tensor& v) {
  const OutputLoss loss = OutputLoss::of(text);
  if (loss.several()) {
    loss.check_outputs(op, v.size(1));
  }
  return loss;
}

}  // namespace

void activation_into(const Tensor& u, std::string_view activation, c10::ArrayRef<double> parameters,
                     Tensor& out) {
  constexpr const char* op = "torchbcd::activation_out";
  checks::same_floating_kind(op, {{"u", u}, {"out", out}});
  checks::has_shape(op, {"out", out}, u.sizes(), "that of u");
  passes::activation(u, activation_from(activation, parameters), out);
}

Pair slopes_of_activation(const Tensor& u, std::string_view activation, c10::ArrayRef<double> parameters) {
  constexpr const char* op = "torchbcd::activation_slopes";
  checks::same_floating_kind(op, {{"u", u}});
  const functors::AnyActivation functor = activation_from(activation, parameters);
  check_continuous(op, functor);
  const Pair slopes = {new_like(u), new_like(u)};
  passes::activation_slopes(u, functor, std::get<0>(slopes), std::get<1>(slopes));
  return slopes;
}

Tensor losses_of_rows(const Tensor& y, const Tensor& v, std::string_view loss) {
  check_rows("torchbcd::row_losses", y, v);
  return passes::row_losses(y, v, loss_of_columns("torchbcd::row_losses", loss, v));
}

Triple subdifferential_of_loss(const Tensor& y, const Tensor& v, std::string_view loss, double unit) {
  constexpr const char* op = "torchbcd::loss_subdifferential";
  check_rows(op, y, v);
  checks::non_negative(op, "unit", unit);
  const Triple parts = {new_like(v), new_like(v), new_like(v)};
  passes::loss_subdifferential(y, v, loss_of_columns(op, loss, v), unit, std::get<0>(parts),
                               std::get<1>(parts), std::get<2>(parts));
  return parts;
}

Tensor penalty_of_regularizer(const Tensor& x, double l1, double l2, double low, double high) {
  checks::same_floating_kind("torchbcd::regularizer_penalty", {{"x", x}});
  return passes::regularizer_penalty(x, {l1, l2, low, high});
}

Pair subdifferential_of_regularizer(const Tensor& x, double l1, double l2, double low, double high) {
  checks::same_floating_kind("torchbcd::regularizer_subdifferential", {{"x", x}});
  const Pair ends = {new_like(x), new_like(x)};
  passes::regularizer_subdifferential(x, {l1, l2, low, high}, std::get<0>(ends), std::get<1>(ends));
  return ends;
}

Tensor targets_of_classes(const Tensor& y, const Tensor& outputs, std::string_view loss) {
  constexpr const char* op = "torchbcd::encode_targets";
  checks::same_floating_kind(op, {{"outputs", outputs}});
  checks::is_matrix(op, {"outputs", outputs}, "(n, C)");
  TORCH_CHECK_VALUE(y.device() == outputs.device(), op, ": y must be on the device of outputs, ",
                    outputs.device(), " (got ", y.device(), ")");
  const OutputLoss of_outputs = OutputLoss::of(loss);
  of_outputs.check_outputs(op, outputs.size(1));
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/false)) {
    TORCH_CHECK_VALUE(!of_outputs.several(), op, ": y must hold values for the loss '", loss,
                      "' (got integers)");
    return of_outputs.class_weighted(encode_classes(op, "y", y, outputs, of_outputs.parts.front().loss));
  }
  TORCH_CHECK_TYPE(y.scalar_type() == outputs.scalar_type(), op,
                   ": y must hold class indices or have the dtype of outputs, ", outputs.scalar_type(),
                   " (got ", y.scalar_type(), ")");
  checks::has_shape(op, {"y", y}, outputs.sizes(), "that of outputs");
  of_outputs.check_targets(op, "y", y);
  return of_outputs.class_weighted(y.clone(at::MemoryFormat::Contiguous));
}

}  // namespace torchbcd::operators
