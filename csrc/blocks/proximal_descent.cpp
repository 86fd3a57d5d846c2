#include "blocks/proximal_descent.h"

#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <utility>

#include "blocks/weight_terms.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr int kProximalSteps = 500;

}  // namespace

ProximalFound proximal_descent(const SmoothPart& f, const ProximalTerm& term, double scale,
                               const at::Tensor& start, double enough, const std::string& where) {
  const double curvature = f.curvature();
  const double at_start = value_of(term, start, where);
  const at::Tensor first = start.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  SmoothPart::Point kept{first, f.gradient(first)}, from = kept;
  ProximalFound found{start, at_start, at_start};
  double momentum = 1;
  for (int k = 0; k < kProximalSteps; ++k) {
    const at::Tensor argument = (from.x - from.gradient / curvature).to(start.scalar_type());
    TORCH_CHECK_LINALG(all_finite(argument), where, ": the update is not finite");
    double value = 0;
    const at::Tensor answer = prox_of(term, argument, scale / curvature, where, value);
    SmoothPart::Point next{answer.to(at::kDouble), {}};
    next.gradient = f.gradient(next.x);
    const double rise = f.rise(next, kept) + scale * (value - found.at_end);
    if (!(rise < 0)) {
      if (momentum == 1) {
        break;
      }
      from = kept;
      momentum = 1;
      continue;
    }
    const double following = (1 + std::sqrt(1 + 4 * momentum * momentum)) / 2;
    const double part = (momentum - 1) / following;
    // Less this, grad f(Z) + L (Y - Z) - grad f(Y), is in the subdifferential of the whole at Z.
    const at::Tensor left = (next.x - from.x) * curvature - (next.gradient - from.gradient);
    const at::Tensor beyond = next.x + part * (next.x - kept.x);
    from = {beyond, f.gradient_beyond(beyond, next, kept, part)};
    momentum = following;
    kept = next;
    found.x = answer;
    found.at_end = value;
    if (left.abs().max().item<double>() <= enough) {
      break;
    }
  }
  return found;
}

}  // namespace torchbcd
