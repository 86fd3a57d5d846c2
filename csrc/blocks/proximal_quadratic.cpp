#include "blocks/proximal_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "blocks/weight_terms.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr int kProximalSteps = 500;

// Where the iteration is: a weight, the gradient of the quadratic there, and r.
struct ProximalPoint {
  at::Tensor weight, gradient;
  double value = 0;
};

}  // namespace

ProximalQuadratic::ProximalQuadratic(NormedQuadratic problem, std::string where)
    : problem_(std::move(problem)),
      where_(std::move(where)),
      system_(problem_.of_weight()),
      largest_(at::linalg_eigvalsh(system_).max().item<double>()) {}

void ProximalQuadratic::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                  const at::Tensor& linear) const {
  const ProximalTerm& term = *problem_.regularizer.proximal;
  const at::Tensor c = centre.to(at::kDouble), b = problem_.shifted(centre, linear);
  const at::Tensor pull = problem_.without_bias(b);
  const double enough =
      (x.scalar_type() == at::kDouble ? 1e-10 : 1e-7) * std::max(pull.abs().max().item<double>(), 1e-290);
  const at::Tensor start = problem_.covered(x);
  const double value_at_start = value_of(term, start, where_);
  ProximalPoint kept{start.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true), {}, value_at_start};
  kept.gradient = at::mm(kept.weight - problem_.covered(c), system_).sub_(pull);
  at::Tensor narrow = start;  // the kept weight as the prox has returned it
  at::Tensor from = kept.weight, slope = kept.gradient;
  double momentum = 1;
  for (int k = 0; k < kProximalSteps; ++k) {
    const at::Tensor argument = (from - slope / largest_).to(x.scalar_type());
    TORCH_CHECK_LINALG(all_finite(argument), where_, ": the update is not finite");
    ProximalPoint next;
    const at::Tensor answer = prox_of(term, argument, problem_.scale / largest_, where_, next.value);
    next.weight = answer.to(at::kDouble);
    const at::Tensor step = next.weight - from;
    next.gradient = slope + at::mm(step, system_);
    const at::Tensor change = next.weight - kept.weight;
    const double rise =
        inner_product(kept.gradient + next.gradient, change) / 2 + problem_.scale * (next.value - kept.value);
    if (!(rise < 0)) {
      if (momentum == 1) {
        break;
      }
      from = kept.weight;
      slope = kept.gradient;
      momentum = 1;
      continue;
    }
    const double following = (1 + std::sqrt(1 + 4 * momentum * momentum)) / 2;
    const double part = (momentum - 1) / following;
    // grad Z + L (Y - Z) - grad Y is in the subdifferential of the whole at Z.
    const at::Tensor left = step * largest_ - (next.gradient - slope);
    from = next.weight + part * change;
    slope = next.gradient + part * (next.gradient - kept.gradient);
    momentum = following;
    narrow = answer;
    kept = std::move(next);
    if (left.abs().max().item<double>() <= enough) {
      break;
    }
  }
  const at::Tensor found = at::empty_like(x);
  problem_.covered(found).copy_(narrow);
  if (problem_.has_bias()) {
    const at::Tensor all = at::mm(c, problem_.hessian).add_(b);
    found.select(1, problem_.regularized).copy_(problem_.best_bias(all, kept.weight));
  }
  // With the bias where it was and as it is held.
  const auto quadratic = [&](const at::Tensor& at) {
    const at::Tensor moved = at.to(at::kDouble) - c;
    return inner_product(at::mm(moved, problem_.hessian).mul_(0.5).sub_(b), moved);
  };
  const double decrease = quadratic(x) - quadratic(found) + problem_.scale * (value_at_start - kept.value);
  if (decrease > 0) {
    x.copy_(found);
  }
}

}  // namespace torchbcd
