#include "blocks/state_map_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr int kHalvingsOfMap = 5;
constexpr double kLeastCurvature = 1e-290;

// The columns' sums over the rows here, in float64.
at::Tensor column_sums(const at::Tensor& t, const Totals& totals) {
  return totals.weighted() ? (t.to(at::kDouble) * totals.weights().weight).sum(0)
                           : t.sum(0, /*keepdim=*/false, at::kDouble);
}

at::Tensor square_norm_of_rows(const at::Tensor& t, const Totals& totals) {
  return totals.weighed(passes::row_sums_of_squares(t));
}

// A parameter with the step it is to take: what V moves by where it does is `image`, entry by entry, or
// summed over the units, where they share it.
struct Part {
  at::Tensor StateMap::* parameter;
  at::Tensor image;
  bool shared;
  at::Tensor gradient, curvature;  // of each unit, in float64; then of the parameter
  at::Tensor step = {};
};

// The parts that are trained.
std::vector<Part> parts_of(const StateMapProblem& problem) {
  const ParameterTangent tangent = problem.map.parameter_tangent(problem.u);
  std::vector<Part> parts;
  if (problem.trained.scale) {
    parts.push_back({&StateMap::scale, tangent.of_scale(), false, {}, {}});
  }
  if (problem.trained.shift) {
    parts.push_back({&StateMap::shift, tangent.of_shift(), false, {}, {}});
  }
  if (problem.trained.slope) {
    parts.push_back({&StateMap::slope, tangent.slope, true, {}, {}});
  }
  return parts;
}

// Sets gradient and curvature of each.
void measure(std::vector<Part>& parts, const StateMapProblem& problem, const Totals& totals) {
  at::Tensor gradient = at::mm(problem.residual, problem.weight * problem.weight_scale);
  at::Tensor curvature_of_unit = problem.weight.to(at::kDouble).square().sum(0);
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      gradient.add_(skip.residual, skip.ratio * problem.weight_scale);
      curvature_of_unit.add_(skip.ratio);
    }
  }
  std::vector<at::Tensor> sums;
  for (const Part& part : parts) {
    sums.push_back(column_sums(gradient * part.image, totals));
    sums.push_back(column_sums(part.image.square(), totals));
  }
  sums = totals.of(sums);
  for (size_t k = 0; k < parts.size(); ++k) {
    Part& part = parts[k];
    part.gradient = sums[2 * k] / problem.weight_scale;
    part.curvature = sums[2 * k + 1] * curvature_of_unit;
    if (part.shared) {
      part.gradient = part.gradient.sum().view({1});
      part.curvature = part.curvature.sum().view({1});
    }
  }
}

// Sets the steps; returns the length, one number in float64.
at::Tensor set_steps(std::vector<Part>& parts, const StateMapProblem& problem, const Totals& totals) {
  at::Tensor mean = at::zeros({}, parts.front().curvature.options());  // over all units' parameters
  double units = 0;
  for (const Part& part : parts) {
    if (!part.shared) {
      mean.add_(part.curvature.sum());
      units += static_cast<double>(part.curvature.numel());
    }
  }
  mean.div_(units > 0 ? units : 1);
  at::Tensor change;
  at::Tensor slope = at::zeros_like(mean);
  at::Tensor damped = at::zeros_like(mean);
  for (Part& part : parts) {
    const at::Tensor alpha = (part.shared ? part.curvature.sum() : mean) * problem.damping;
    part.step = part.gradient / (part.curvature + alpha).add_(kLeastCurvature);
    slope.add_((part.gradient * part.step).sum());
    damped.add_(alpha * part.step.square().sum());
    const at::Tensor own = part.image * part.step.to(part.image.scalar_type());
    change = change.defined() ? change.add_(own) : own;
  }
  at::Tensor curvature = at::sum(square_norm_of_rows(at::mm(change, problem.weight.t()), totals));
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      curvature.add_(at::sum(square_norm_of_rows(change, totals)), skip.ratio);
    }
  }
  return slope.mul_(problem.relaxation).div_(totals.of(curvature).add(damped).add_(kLeastCurvature));
}

}  // namespace

std::optional<StateMapMoved> state_map_step(const StateMapProblem& problem, const at::Tensor& sums,
                                            const Totals& totals) {
  std::vector<Part> parts = parts_of(problem);
  measure(parts, problem, totals);
  const at::Tensor length = set_steps(parts, problem, totals);
  StateMapMoved moved{problem.map, {}, {}, {}, {}, sums, {}};
  for (const SkipReader& skip : problem.skips) {
    if (skip.reads_v) {
      moved.start = at::add(moved.start, square_norm_of_rows(skip.residual, totals), skip.ratio);
    }
  }
  for (int halving = 0; halving <= kHalvingsOfMap; ++halving) {
    for (const Part& part : parts) {
      const at::Tensor& from = problem.map.*part.parameter;
      moved.map.*part.parameter = (from + part.step * length).to(from.scalar_type());
    }
    moved.map.read_slope();
    moved.change = moved.map(problem.u).sub_(problem.v);
    moved.residual = at::addmm(problem.residual, moved.change, problem.weight.t(), 1, -1);
    moved.sums = square_norm_of_rows(moved.residual, totals);
    moved.end = moved.sums;
    moved.skip_residuals.clear();
    for (const SkipReader& skip : problem.skips) {
      moved.skip_residuals.push_back(skip.reads_v ? skip.residual - moved.change : skip.residual);
      if (skip.reads_v) {
        const at::Tensor own = square_norm_of_rows(moved.skip_residuals.back(), totals);
        moved.end = at::add(moved.end, own, skip.ratio);
      }
    }
    const std::vector<at::Tensor> both = totals.of({at::sum(moved.end), at::sum(moved.start)});
    if (both[0].le(both[1]).item<bool>()) {
      return moved;
    }
    length.mul_(0.5);
  }
  return std::nullopt;
}

}  // namespace torchbcd
