#include "blocks/normalization_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr int kHalvingsOfAffine = 5;
constexpr double kLeastCurvature = 1e-290;

// The columns' sums over the rows here, in float64.
at::Tensor column_sums(const at::Tensor& t, const Totals& totals) {
  return totals.weighted() ? (t.to(at::kDouble) * totals.weights().weight).sum(0)
                           : t.sum(0, false, at::kDouble);
}

// A direction of (scale, shift), (2, d) in float64, with what it changes V by to first order.
struct AffineDirection {
  at::Tensor step;
  at::Tensor change;
  at::Tensor length;  // one number, float64
};

AffineDirection affine_direction(const NormalizationProblem& problem, const Totals& totals) {
  const auto& [slope, n] = problem.map.affine_tangent(problem.u);
  at::Tensor gradient = at::mm(problem.residual, problem.weight * problem.weight_scale);
  at::Tensor curvature_of_unit = problem.weight.to(at::kDouble).square().sum(0);
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      gradient.add_(skip.residual, skip.ratio * problem.weight_scale);
      curvature_of_unit.add_(skip.ratio);
    }
  }
  const at::Tensor weighted_slope = slope.defined() ? slope : at::full_like(n, 1);
  gradient.mul_(weighted_slope);
  const at::Tensor along_scale = weighted_slope * n;
  const std::vector<at::Tensor> sums =
      totals.of({column_sums(gradient * n, totals), column_sums(gradient, totals),
                 column_sums(along_scale.square(), totals), column_sums(weighted_slope.square(), totals)});
  const at::Tensor trained = at::stack({at::full_like(sums[0], problem.trained.scale ? 1 : 0),
                                        at::full_like(sums[0], problem.trained.shift ? 1 : 0)});
  const at::Tensor g = at::stack({sums[0], sums[1]}).div_(problem.weight_scale).mul_(trained);
  const at::Tensor h = at::stack({sums[2], sums[3]}).mul_(curvature_of_unit).mul_(trained);
  const at::Tensor alpha = h.sum().mul_(problem.damping).div_(trained.sum());
  AffineDirection direction;
  direction.step = g / (h + alpha).add_(kLeastCurvature);
  const at::Tensor step = direction.step.to(n.scalar_type());
  direction.change = (n * step[0]).add_(step[1]).mul_(weighted_slope);
  at::Tensor curvature =
      at::sum(totals.weighed(passes::row_sums_of_squares(at::mm(direction.change, problem.weight.t()))));
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      curvature.add_(at::sum(totals.weighed(passes::row_sums_of_squares(direction.change))), skip.ratio);
    }
  }
  curvature = totals.of(curvature) + alpha * direction.step.square().sum();
  direction.length =
      (g * direction.step).sum().mul_(problem.relaxation).div_(curvature.add_(kLeastCurvature));
  return direction;
}

}  // namespace

std::optional<NormalizationMoved> normalization_step(const NormalizationProblem& problem,
                                                     const at::Tensor& sums, const Totals& totals) {
  AffineDirection direction = affine_direction(problem, totals);
  NormalizationMoved moved;
  moved.start = sums;
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      moved.start =
          at::add(moved.start, totals.weighed(passes::row_sums_of_squares(skip.residual)), skip.ratio);
    }
  }
  const auto stepped = [&direction](const at::Tensor& from, int64_t row, bool trained) {
    return trained ? (from + direction.step[row] * direction.length).to(from.scalar_type()) : from;
  };
  for (int halving = 0; halving <= kHalvingsOfAffine; ++halving) {
    StateMap map = problem.map;
    map.scale = moved.scale = stepped(problem.map.scale, 0, problem.trained.scale);
    map.shift = moved.shift = stepped(problem.map.shift, 1, problem.trained.shift);
    moved.change = map(problem.u).sub_(problem.v);
    moved.residual = at::addmm(problem.residual, moved.change, problem.weight.t(), 1, -1);
    moved.sums = totals.weighed(passes::row_sums_of_squares(moved.residual));
    moved.end = moved.sums;
    moved.skip_residuals.clear();
    for (const SkipReader& skip : problem.skips) {
      moved.skip_residuals.push_back(skip.reads_v ? skip.residual - moved.change : skip.residual);
      if (skip.reads_v) {
        const at::Tensor own = totals.weighed(passes::row_sums_of_squares(moved.skip_residuals.back()));
        moved.end = at::add(moved.end, own, skip.ratio);
      }
    }
    const std::vector<at::Tensor> both = totals.of({at::sum(moved.end), at::sum(moved.start)});
    if (both[0].le(both[1]).item<bool>()) {
      return moved;
    }
    direction.length.mul_(0.5);
  }
  return std::nullopt;
}

}  // namespace torchbcd
