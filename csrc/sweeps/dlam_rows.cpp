#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "sweeps/dlam.h"

namespace torchbcd {
namespace {

// The most that |a - h(z)| - eps can owe to rounding: of a, of h(z), and of z where h is steep.
double rounding_of(const DlamProblem& problem, const DlamRows& rows, size_t l) {
  const at::Tensor& a = rows.current.a[l];
  const at::Tensor& z = rows.current.z[l];
  const at::Tensor slopes = passes::activation_derivative(z, problem.activations[l], at::empty_like(z));
  const auto largest = [](const at::Tensor& t) { return t.numel() > 0 ? t.abs().max().item<double>() : 0; };
  return 8 * unit_of(a.scalar_type()) * (largest(a) + rows.eps + largest(slopes * z));
}

bool feasible(const DlamProblem& problem, const DlamRows& rows, size_t l, double gap) {
  return gap <= 0 || gap <= rounding_of(problem, rows, l);
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

void start_from(const DlamProblem& problem, const std::vector<AffineMap>& maps,
                const std::vector<at::Tensor>& z, const std::vector<at::Tensor>& a, DlamRows& rows) {
  DlamVariables& point = rows.current;
  for (size_t l = 0; l < problem.depth(); ++l) {
    const bool hidden = l + 1 < problem.depth();
    affine_out(l == 0 ? rows.x : point.a[l - 1], maps[l], point.q[l]);
    if (hidden && !a.empty()) {
      point.a[l].copy_(a[l]);
    }
    if (!z.empty()) {
      point.z[l].copy_(z[l]);
    } else if (hidden && !a.empty()) {
      const at::Tensor none = at::full_like(point.q[l], std::numeric_limits<double>::quiet_NaN());
      passes::preimage_projection(point.q[l], point.a[l], none, problem.activations[l], rows.eps, point.z[l]);
      TORCH_CHECK_VALUE(all_finite(point.z[l]), problem.name, ": a of layer ", l + 1,
                        " must be within eps, in the first sweep ", rows.eps,
                        ", of values that its activation takes (got some that it takes nowhere)");
    } else {
      point.z[l].copy_(point.q[l]);
    }
    if (hidden && a.empty()) {
      passes::activation(point.z[l], problem.activations[l], point.a[l]);
    }
  }
  if (z.empty() && a.empty()) {
    return;
  }
  const std::vector<double> gap = gaps(problem, rows);
  const auto worst = std::max_element(gap.begin(), gap.end());
  for (size_t l = 0; l < gap.size(); ++l) {
    TORCH_CHECK_VALUE(feasible(problem, rows, l, gap[l]), problem.name,
                      ": every |a_l - h_l(z_l)| must be at most eps, in the first sweep ", rows.eps,
                      " (got up to ", *worst + rows.eps, " in layer ", worst - gap.begin() + 1, ")");
  }
}

void refresh_products(const std::vector<AffineMap>& maps, DlamRows& rows) {
  products_out(rows.x, rows.current.a, maps, rows.current.q);
  rows.since_refresh = 0;
}

std::vector<double> gaps(const DlamProblem& problem, const DlamRows& rows) {
  std::vector<double> gaps;
  for (size_t l = 0; l + 1 < problem.depth(); ++l) {
    if (rows.rows() == 0) {
      gaps.push_back(-std::numeric_limits<double>::infinity());
      continue;
    }
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
    const bool is_in_box = l + 1 == problem.depth() || feasible(problem, rows, l, gap[l]);
    terms.activation_penalty.push_back(is_in_box ? 0 : std::numeric_limits<double>::infinity());
  }
  terms.loss = row_loss_weight(options, rows.population) *
               weighted_loss(rows.y, rows.current.z.back(), problem.loss, rows.row_weight);
  add_up_over_rows(Totals(problem.sum_over_ranks, rows.x.device()), terms);
  return terms;
}

}  // namespace torchbcd
