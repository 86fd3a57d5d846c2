#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/relaxed.h"

namespace torchbcd {

bool RelaxedProblem::clamped() const {
  return std::holds_alternative<functors::SquaredLoss>(loss) &&
         std::holds_alternative<functors::Identity>(activations.back());
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

void RelaxedRows::set_targets(const at::Tensor& encoded, bool are_classes, const SumOverRanks& sum) {
  y = encoded;
  auto count = static_cast<double>(encoded.size(0));
  double numbers = are_classes ? 0 : 1;  // processes whose targets are such
  double square = are_classes && !sum ? 0 : passes::sum_of_squares(encoded);
  if (sum) {
    sum_over_ranks(sum, encoded.device(), {&count, &numbers, &square});
  }
  population = static_cast<int64_t>(count);
  classes = numbers == 0;
  target_square = classes ? 1 : square / count;
}

std::vector<double> relaxed_penalties(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                                      int64_t rows) {
  const size_t depth = problem.depth();
  const RelaxedBCDOptions& options = problem.options;
  std::vector<double> penalties(depth);
  penalties.back() = row_loss_weight(options, rows) * (problem.clamped() ? 1 : options.output_penalty());
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
    penalties[l - 1] = std::max(options.penalty_ratio()[l] * held, 1e-290);
  }
  return penalties;
}

ObjectiveTerms objective_terms(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                               const RelaxedRows& rows, const std::vector<at::Tensor>& u,
                               const std::vector<at::Tensor>& v) {
  ObjectiveTerms terms;
  terms.activation_penalty.assign(problem.depth(), 0);
  terms.state_penalty.assign(problem.depth(), 0);
  for (size_t l = 0; l < problem.depth(); ++l) {
    const at::Tensor residual = at::empty_like(u[l]);
    affine_residual_out(u[l], l == 0 ? rows.x : v[l - 1], maps[l], residual);
    add_skipped_(problem.skips, l, rows.x, u, v, residual, -1);
    terms.affine_penalty.push_back(rows.penalties[l] / 2 * passes::sum_of_squares(residual));
    terms.weight_penalty.push_back(
        rows.penalties[l] * regularizer_value(problem.options.weight_regularizer()[l], maps[l].weight));
  }
  terms.loss = problem.clamped() ? 0
                                 : row_loss_weight(problem.options, rows.population) *
                                       weighted_loss(rows.y, v.back(), problem.loss);
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
