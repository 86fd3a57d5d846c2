#include "sweeps/dlam_conditions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include <cmath>

namespace torchbcd {
namespace {

// a W^T + 1 b^T - z in float64, as `a` is.
at::Tensor exact_residual(const at::Tensor& a, const AffineMap& map, const at::Tensor& z) {
  at::Tensor r = at::mm(a, map.weight.to(at::kDouble).t()).sub_(z.to(at::kDouble));
  return map.bias.defined() ? r.add_(map.bias.to(at::kDouble)) : r;
}

double relative_slack(double model, double phi) {
  const double scale = std::fabs(model) + phi;
  return scale > 0 ? (model - phi) / scale : 0;
}

}  // namespace

double weight_slack(const at::Tensor& a, const at::Tensor& z, const AffineMap& from, const AffineMap& next,
                    double rho, double theta, const WeightRegularizer& regularizer, const Totals& totals) {
  const at::Tensor inputs = a.to(at::kDouble);
  const at::Tensor r = exact_residual(inputs, from, z);
  const at::Tensor change = next.weight.to(at::kDouble) - from.weight.to(at::kDouble);
  double model = rho / 2 * norm_squared(r) + rho * inner_product(at::mm(r.t(), inputs), change);
  double phi = rho / 2 * norm_squared(exact_residual(inputs, next, z));
  at::Tensor bias_change;
  double bias_slope = 0;
  if (from.bias.defined()) {
    bias_change = next.bias.to(at::kDouble) - from.bias.to(at::kDouble);
    bias_slope = rho * inner_product(r.sum(0), bias_change);
  }
  totals.add_up({&model, &phi, &bias_slope});
  model += theta / 2 * norm_squared(change);
  if (from.bias.defined()) {
    const double theta_bias = theta + (regularizer.quadratic() ? regularizer.entries.l2 : 0);
    model += bias_slope + theta_bias / 2 * norm_squared(bias_change);
  }
  return relative_slack(model, phi);
}

double state_slack(const at::Tensor& from, const at::Tensor& next, const at::Tensor& z, const AffineMap& map,
                   double rho, double tau, const Totals& totals) {
  const at::Tensor r = exact_residual(from, map, z);
  const at::Tensor change = next - from;
  double model = rho / 2 * norm_squared(r) +
                 rho * inner_product(at::mm(r, map.weight.to(at::kDouble)), change) +
                 tau / 2 * norm_squared(change);
  double phi = rho / 2 * norm_squared(exact_residual(next, map, z));
  totals.add_up({&model, &phi});
  return relative_slack(model, phi);
}

}  // namespace torchbcd
