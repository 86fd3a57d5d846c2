// weight_update, state_update: the least-squares blocks of Algorithm 2 on tensors.
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "engine/blocks.h"
#include "ops/checks.h"
#include "ops/dispatch.h"
#include "torchbcd/functional.h"

namespace torchbcd {
namespace {

using WeightUpdateSignature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                                 const at::Tensor&,
                                                                 const std::optional<at::Tensor>&, double,
                                                                 double);
using StateUpdateSignature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                        const std::optional<at::Tensor>&, double, double);

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

std::tuple<at::Tensor, at::Tensor> weight_update_kernel(const at::Tensor& u, const at::Tensor& v,
                                                        const at::Tensor& weight,
                                                        const std::optional<at::Tensor>& bias, double rho,
                                                        double alpha) {
  constexpr const char* op = "torchbcd::weight_update";
  const AffineMap previous = checked_layer(op, {"v", v}, {"u", u}, weight, bias);
  checks::positive(op, "rho", rho);
  checks::positive(op, "alpha", alpha);
  const bool has_bias = previous.bias.defined();
  const AffineMap next{at::empty(weight.sizes(), weight.options()),
                       at::empty({has_bias ? weight.size(0) : 0}, weight.options())};
  const at::Tensor residual = at::empty(u.sizes(), u.options());
  affine_residual_out(u, v, previous, residual);
  const WeightBlock block(v, weight.size(0), has_bias, {rho, alpha, {}}, /*always_primal=*/false, op);
  block.solve(residual, previous, next);
  return {next.weight, next.bias};
}

at::Tensor state_update_kernel(const at::Tensor& s, const at::Tensor& u, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, double gamma, double rho) {
  constexpr const char* op = "torchbcd::state_update";
  const AffineMap map = checked_layer(op, {"s", s}, {"u", u}, weight, bias);
  checks::positive(op, "gamma", gamma);
  checks::positive(op, "rho", rho);
  const at::Tensor v = at::empty(s.sizes(), s.options()).copy_(s);
  const at::Tensor residual = at::empty(u.sizes(), u.options());
  StateBlock(map, gamma, rho, {}, s.size(0), op).solve_(v, s, u, residual);
  return v;
}

void implement(torch::Library& m) {
  m.impl("weight_update", &weight_update_kernel);
  m.impl("state_update", &state_update_kernel);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> weight_update(const at::Tensor& u, const at::Tensor& v,
                                                 const at::Tensor& weight,
                                                 const std::optional<at::Tensor>& bias, double rho,
                                                 double alpha) {
  static const auto op = find_operator<WeightUpdateSignature>("torchbcd::weight_update");
  return op.call(u, v, weight, bias, rho, alpha);
}

at::Tensor state_update(const at::Tensor& s, const at::Tensor& u, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias, double gamma, double rho) {
  static const auto op = find_operator<StateUpdateSignature>("torchbcd::state_update");
  return op.call(s, u, weight, bias, gamma, rho);
}

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  m.def(
      "weight_update(Tensor u, Tensor v, Tensor weight, Tensor? bias, float rho, float alpha) -> "
      "(Tensor, Tensor)");
  m.def(
      "state_update(Tensor s, Tensor u, Tensor weight, Tensor? bias, float gamma, float rho) -> "
      "Tensor");
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const char* op : {"weight_update", "state_update"}) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
