// weight_update, state_update: the least-squares blocks of Algorithm 2 on tensors. preimage_projection,
// joint_state_update: the z block and the joint (z, a) block of DLAM (Wang et al., Problem 2).
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "blocks/least_squares.h"
#include "doors/operators/functions.h"
#include "kernels/checks.h"
#include "kernels/passes.h"

namespace torchbcd::operators {
namespace {

// (W, b), once the shapes of a layer with n rows, inputs `v` and outputs `u` have been checked.
AffineMap checked_layer(const char* op, const checks::Argument& v, const checks::Argument& u,
                        const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  checks::same_floating_kind(op, {{"weight", weight}, u, v});
  checks::is_matrix(op, {"weight", weight}, "(d', d)");
  checks::has_shape(op, v, {v.tensor.dim() > 0 ? v.tensor.size(0) : 0, weight.size(1)}, "(n, d)");
  checks::has_shape(op, u, {v.tensor.size(0), weight.size(0)}, "(n, d')");
  if (!bias.has_value() || !bias->defined()) {
    return {weight, {}};
  }
  checks::same_floating_kind(op, {{"weight", weight}, {"bias", *bias}});
  checks::has_shape(op, {"bias", *bias}, {weight.size(0)}, "(d',)");
  return {weight, *bias};
}

}  // namespace

Pair update_weight(const Tensor& u, const Tensor& v, const Tensor& weight, const std::optional<Tensor>& bias,
                   double rho, double alpha) {
  constexpr const char* op = "torchbcd::weight_update";
  const AffineMap previous = checked_layer(op, {"v", v}, {"u", u}, weight, bias);
  checks::positive(op, "rho", rho);
  checks::positive(op, "alpha", alpha);
  const bool has_bias = previous.bias.defined();
  const AffineMap next{at::empty(weight.sizes(), weight.options()),
                       at::empty({has_bias ? weight.size(0) : 0}, weight.options())};
  const at::Tensor residual = at::empty(u.sizes(), u.options());
  affine_residual_out(u, v, previous, residual);
  const WeightBlock block({v, has_bias}, weight.size(0), {rho, alpha, alpha}, /*always_primal=*/false, op);
  block.solve(residual, previous, next);
  return {next.weight, next.bias};
}

Tensor update_state(const Tensor& s, const Tensor& u, const Tensor& weight, const std::optional<Tensor>& bias,
                    double gamma, double rho) {
  constexpr const char* op = "torchbcd::state_update";
  const AffineMap map = checked_layer(op, {"s", s}, {"u", u}, weight, bias);
  checks::positive(op, "gamma", gamma);
  checks::positive(op, "rho", rho);
  const at::Tensor v = at::empty(s.sizes(), s.options()).copy_(s);
  const at::Tensor residual = at::empty(u.sizes(), u.options());
  HiddenStateBlock(map, gamma, rho, {}, s.size(0), op).solve_(v, s, u, residual);
  return v;
}

Tensor project_to_preimages(const Tensor& q, const Tensor& a, const Tensor& z, std::string_view activation,
                            c10::ArrayRef<double> parameters, double eps) {
  constexpr const char* op = "torchbcd::preimage_projection";
  checks::same_floating_kind(op, {{"q", q}, {"a", a}, {"z", z}});
  checks::has_shape(op, {"a", a}, q.sizes(), "that of q");
  checks::has_shape(op, {"z", z}, q.sizes(), "that of q");
  checks::non_negative(op, "eps", eps);
  const functors::AnyActivation functor = activation_from(activation, parameters);
  check_monotone(op, functor);
  at::Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
  passes::preimage_projection(q.contiguous(), a.contiguous(), z.contiguous(), functor, eps, out);
  return out;
}

Pair update_joint_state(const Tensor& q, const Tensor& v, std::string_view activation,
                        c10::ArrayRef<double> parameters, double ratio, double eps) {
  constexpr const char* op = "torchbcd::joint_state_update";
  checks::same_floating_kind(op, {{"q", q}, {"v", v}});
  checks::has_shape(op, {"v", v}, q.sizes(), "that of q");
  checks::positive(op, "ratio", ratio);
  checks::non_negative(op, "eps", eps);
  const functors::AnyActivation functor = activation_from(activation, parameters);
  check_monotone(op, functor);
  const at::Tensor centre = q.contiguous();
  const at::Tensor target = v.contiguous();
  at::Tensor z = at::empty_like(centre);
  at::Tensor a = at::empty_like(centre);
  const at::Tensor direction = at::empty_like(centre);
  passes::joint_step(target, target, target, centre, centre, functor, /*omega=*/0, /*step=*/0, eps, ratio, z,
                     a, direction);
  return {z, a};
}

}  // namespace torchbcd::operators
