#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <limits>
#include <utility>

#include "blocks/regularized_quadratic.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "sweeps/dlam.h"

namespace torchbcd {
namespace {

// The most that |a - h(z)| - eps can owe to rounding.
double rounding_of(const at::Tensor& values, double eps) {
  const double unit = unit_of(values.scalar_type());
  const double largest = values.numel() > 0 ? values.abs().max().item<double>() : 0;
  return 8 * unit * (largest + eps);
}

}  // namespace

DlamVariables DlamVariables::allocate(int64_t n, const std::vector<AffineMap>& maps) {
  return {allocate_states(n, maps), allocate_states(n, maps, /*with_last=*/false), allocate_states(n, maps)};
}

DlamRows DlamRows::allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight,
                            const std::vector<AffineMap>& maps) {
  const int64_t n = x.size(0);
  DlamRows rows;
  rows.x = std::move(x);
  rows.y = std::move(y);
  rows.row_weight = std::move(row_weight);
  rows.current = DlamVariables::allocate(n, maps);
  rows.next = DlamVariables::allocate(n, maps);
  rows.a_previous = allocate_states(n, maps, /*with_last=*/false);
  rows.q_previous = at::empty_like(rows.current.q.front());
  rows.trial_q = allocate_states(n, maps);
  rows.scratch = allocate_scratch(n, maps, 4);
  rows.theta.assign(maps.size(), 0);
  rows.tau.assign(maps.size() - 1, 0);
  return rows;
}

void refresh_products(const std::vector<AffineMap>& maps, DlamRows& rows) {
  products_out(rows.x, rows.current.a, maps, rows.current.q);
  rows.since_refresh = 0;
}

std::vector<double> gaps(const DlamProblem& problem, const DlamRows& rows) {
  std::vector<double> gaps;
  for (size_t l = 0; l + 1 < problem.depth(); ++l) {
    const at::Tensor image = passes::activation(rows.current.z[l], problem.activations[l]);
    gaps.push_back((image - rows.current.a[l]).abs_().max().item<double>() - rows.eps);
  }
  return gaps;
}

ObjectiveTerms objective_terms(const DlamProblem& problem, const std::vector<AffineMap>& maps,
                               const DlamRows& rows) {
  ObjectiveTerms terms;
  const DLAMOptions& options = problem.options;
  const std::vector<double> gap = gaps(problem, rows);
  for (size_t l = 0; l < problem.depth(); ++l) {
    const at::Tensor& z = rows.current.z[l];
    const at::Tensor residual = scratch_view(rows.scratch[0], rows.rows(), z.size(1));
    terms.affine_penalty.push_back(options.rho()[l] / 2 * passes::difference(rows.current.q[l], z, residual));
    terms.weight_penalty.push_back(regularizer_value(options.weight_regularizer()[l], maps[l].weight));
    terms.state_penalty.push_back(0);
    const bool feasible = l + 1 == problem.depth() || gap[l] <= rounding_of(rows.current.a[l], rows.eps);
    terms.activation_penalty.push_back(feasible ? 0 : std::numeric_limits<double>::infinity());
  }
  terms.loss = row_loss_weight(options, rows.rows()) *
               weighted_loss(rows.y, rows.current.z.back(), problem.loss, rows.row_weight);
  return terms;
}

}  // namespace torchbcd
