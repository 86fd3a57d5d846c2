#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/relaxed.h"

namespace torchbcd {

namespace {

// |Y|^2 of the outputs that are to be their targets.
double square_of_numbers(const at::Tensor& y, const OutputLoss& loss, const Totals& totals) {
  double square = 0;
  for (const OutputLoss::Part& part : loss.parts) {
    if (predicts_targets(part.loss)) {
      square += passes::sum_of_squares(totals.scaled(part.of(y).contiguous()));
    }
  }
  return square;
}

}  // namespace

bool RelaxedProblem::clamped() const { return loss.squared() && functors::is_identity(activations.back()); }

RelaxedStates RelaxedStates::allocate(int64_t n, const std::vector<AffineMap>& maps,
                                      const RowStorage& storage, const std::string& set) {
  return {allocate_states(n, maps, /*with_last=*/true, storage, set + "U"),
          allocate_states(n, maps, /*with_last=*/true, storage, set + "V")};
}

RelaxedRows RelaxedRows::allocate(int64_t n, const std::vector<AffineMap>& maps) {
  RelaxedRows rows;
  for (std::vector<at::Tensor>* list : {&rows.p, &rows.v, &rows.slack, &rows.change}) {
    *list = allocate_states(n, maps);
  }
  rows.scratch = allocate_scratch(n, maps, 4);
  return rows;
}

RelaxedRows RelaxedRows::narrow(int64_t n) const {
  const auto cut = [n](const std::vector<at::Tensor>& whole) {
    std::vector<at::Tensor> part;
    for (const at::Tensor& t : whole) {
      part.push_back(t.narrow(0, 0, n));
    }
    return part;
  };
  RelaxedRows rows;
  rows.p = cut(p);
  rows.v = cut(v);
  rows.slack = cut(slack);
  rows.change = cut(change);
  rows.scratch = scratch;
  return rows;
}

RelaxedData RelaxedData::of(at::Tensor x, at::Tensor y, const at::Tensor& row_weight) {
  return {std::move(x), std::move(y), row_weight.defined() ? RowWeights::of(row_weight) : RowWeights()};
}

RelaxedData::Sums RelaxedData::sums(bool are_classes, const OutputLoss& loss, bool several_processes) const {
  const SumOverRanks here;
  const Totals totals = this->totals(here);
  const bool wanted = !are_classes || several_processes;
  return {totals.count_here(y.size(0)), are_classes ? 0.0 : 1.0,
          wanted ? square_of_numbers(y, loss, totals) : 0};
}

void RelaxedData::measure(const char* where, const OutputLoss& loss, const Sums& sums) {
  TORCH_CHECK_VALUE(sums.count > 0 && std::isfinite(sums.count), where,
                    ": the rows' weights must have a sum that is finite and > 0 (got ", sums.count, ")");
  population = sums.count;
  classes = sums.numbers == 0;
  const bool all_numbers =
      std::all_of(loss.parts.begin(), loss.parts.end(),
                  [](const OutputLoss::Part& part) { return predicts_targets(part.loss); });
  target_square = classes ? 1 : std::max(sums.square / sums.count, all_numbers ? 0.0 : 1.0);
}

std::vector<StateMap> RelaxedProblem::state_maps(const std::vector<AffineMap>& maps,
                                                 const std::vector<at::Tensor>& masks) const {
  std::vector<StateMap> result;
  for (size_t l = 0; l < depth(); ++l) {
    result.push_back({activations[l], normalizations[l], maps[l].scale, maps[l].shift, maps[l].slope,
                      masks.empty() ? at::Tensor() : masks[l]});
    result.back().read_slope();
  }
  return result;
}

std::vector<double> spreads_of(const RelaxedProblem& problem, const RelaxedRows& rows,
                               const std::vector<at::Tensor>& u, const std::vector<StateMap>& state_maps) {
  std::vector<double> spreads(problem.depth(), 0);
  std::vector<double*> sums;
  const Totals totals = rows.totals(problem.sum_over_ranks);
  for (size_t l = 0; l < problem.depth(); ++l) {
    if (problem.normalized(l)) {
      spreads[l] = totals.weighed(state_maps[l].variances(u[l])).sum().item<double>();
      sums.push_back(&spreads[l]);
    }
  }
  if (!sums.empty()) {
    totals.add_up(sums);
    for (double* sum : sums) {
      *sum /= rows.population;
    }
  }
  return spreads;
}

std::vector<double> relaxed_penalties(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                                      const RelaxedRows& rows) {
  const size_t depth = problem.depth();
  const RelaxedBCDOptions& options = problem.options;
  std::vector<double> penalties(depth);
  penalties.back() =
      row_loss_weight(options, rows.population) * (problem.clamped() ? 1 : options.output_penalty());
  std::vector<at::Tensor> weights;
  for (size_t l = 1; l < depth; ++l) {
    weights.push_back(maps[l].weight.contiguous());
  }
  const std::vector<double> squares = passes::sums_of_squares(weights);
  for (size_t l = depth - 1; l > 0; --l) {
    const double gain = squares[l - 1] / static_cast<double>(maps[l].weight.size(0));
    double held = penalties[l] * gain;  // by those that read V, or U
    for (const Skip& skip : problem.skips) {
      held += skip.from == static_cast<int64_t>(l) - 1 ? penalties[skip.to] : 0;
    }
    if (problem.normalized(l - 1)) {  // V moves by scale/s where U moves by one
      const at::Tensor& scale = maps[l - 1].scale;
      const double square = scale.defined() ? passes::sum_of_squares(scale) / double(scale.numel()) : 1;
      held *= square / std::max(rows.spreads[l - 1], 1e-290);
    }
    penalties[l - 1] = std::max(options.penalty_ratio()[l] * held, 1e-290);
  }
  return penalties;
}

ObjectiveTerms objective_terms(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                               const RelaxedRows& rows, const std::vector<at::Tensor>& u,
                               const std::vector<at::Tensor>& v) {
  const Totals totals = rows.totals(problem.sum_over_ranks);
  ObjectiveTerms terms;
  terms.activation_penalty.assign(problem.depth(), 0);
  terms.state_penalty.assign(problem.depth(), 0);
  for (size_t l = 0; l < problem.depth(); ++l) {
    const at::Tensor residual = at::empty_like(u[l]);
    affine_residual_out(u[l], l == 0 ? rows.x : v[l - 1], maps[l], residual);
    add_skipped_(problem.skips, l, rows.x, u, v, residual, -1);
    terms.affine_penalty.push_back(rows.penalties[l] / 2 * passes::sum_of_squares(totals.scaled(residual)));
    terms.weight_penalty.push_back(
        rows.penalties[l] * regularizer_value(problem.options.weight_regularizer()[l], maps[l].weight));
  }
  terms.loss = problem.clamped() ? 0
                                 : row_loss_weight(problem.options, rows.population) *
                                       weighted_loss(rows.y, v.back(), problem.loss, rows.weights.weight);
  if (problem.sum_over_ranks) {
    std::vector<double*> sums = {&terms.loss};
    for (double& penalty : terms.affine_penalty) {
      sums.push_back(&penalty);
    }
    sum_over_ranks(problem.sum_over_ranks, rows.x.device(), sums);
  }
  return terms;
}

}  // namespace torchbcd
