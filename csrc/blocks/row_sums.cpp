#include <ATen/TensorOperators.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <tuple>

#include "blocks/normed_quadratic.h"
#include "blocks/weight_terms.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr int kSumSteps = 60;             // of mu
constexpr double kSumReached = 1e-14;     // relative distance of a 1-norm from the radius that is rounding's
constexpr double kSumSettled = 1e-15;     // relative width of a bracket that is
constexpr double kOnSum = 1e-10;          // relative distance of a 1-norm that ends on the radius
constexpr int64_t kSumSystems = 1 << 21;  // entries of all matrices that are factored at once

at::Tensor sums_of_rows(const at::Tensor& w) { return row_sum(w.abs()); }

}  // namespace

// How fast each row's |w(mu)|_1 falls with mu, (m, 1): its entries that are not zero, A, move along
// -(S_AA)^-1 times their signs.
at::Tensor RowSums::fall(const at::Tensor& w) const {
  const at::Tensor free = w != 0;
  const int64_t most = free.sum(1).max().item<int64_t>();
  if (most == 0) {
    return at::zeros({w.size(0), 1}, w.options());
  }
  const auto [marks, index] = free.to(at::kChar).topk(most, 1);
  const at::Tensor real = marks.to(at::kBool);
  const at::Tensor signs = at::where(real, w.sign().gather(1, index), 0);
  const at::Tensor moves = at::zeros_like(signs);
  const int64_t size = std::max<int64_t>(1, kSumSystems / (most * most));
  for (int64_t begin = 0; begin < w.size(0); begin += size) {
    const int64_t count = std::min(size, w.size(0) - begin);
    const at::Tensor in = index.narrow(0, begin, count), used = real.narrow(0, begin, count);
    at::Tensor system = system_.index({in.unsqueeze(2), in.unsqueeze(1)});
    system.mul_(used.unsqueeze(2)).mul_(used.unsqueeze(1));
    system.diagonal(0, 1, 2).add_(used.logical_not());
    const at::Tensor factor = std::get<0>(at::linalg_cholesky_ex(system));
    const at::Tensor wanted = signs.narrow(0, begin, count).unsqueeze(2);
    moves.narrow(0, begin, count).copy_(at::cholesky_solve(wanted, factor).squeeze(2));
  }
  return row_sum(signs * moves);
}

void RowSums::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const WeightRegularizer& r = problem_.regularizer;
  const at::Tensor c = centre.to(at::kDouble), plain = linear.to(at::kDouble);
  const at::Tensor b = problem_.shifted(centre, linear);
  const at::Tensor all = at::mm(c, problem_.hessian).add_(b);
  const ColumnBounds bounds = column_bounds(r, problem_.regularized, x.scalar_type());
  const at::Tensor lowest = bounds.on(x.device(), bounds.low), highest = bounds.on(x.device(), bounds.high);
  const at::Tensor found = x.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  at::Tensor w = problem_.covered(found);
  // What is left of the radius at w(mu), which it leaves in w.
  const auto left_at = [&](const at::Tensor& mu) {
    w.clamp_(lowest, highest);
    without_norms_.minimise_(found, c, plain, /*ridge=*/{}, mu);
    const at::Tensor left = r.l1_radius - sums_of_rows(w);
    return at::where(left.abs() <= kSumReached * r.l1_radius, 0, left);
  };
  at::Tensor low = at::zeros({x.size(0), 1}, x.options().dtype(at::kDouble));
  at::Tensor high = problem_.without_bias(all).abs().amax(1, /*keepdim=*/true);  // there w is zero
  at::Tensor mu = low, left = left_at(mu);
  at::Tensor ended = left >= 0;
  for (int k = 1; k <= kSumSteps && !ended.all().item<bool>(); ++k) {
    const at::Tensor newton = mu - left / fall(w);
    const at::Tensor inside = (newton > low).logical_and_(newton < high);
    const at::Tensor next = k % 4 == 0 ? (low + high) / 2 : at::where(inside, newton, (low + high) / 2);
    mu = at::where(ended, mu, next);
    left = left_at(mu);
    low = at::where(left < 0, mu, low);
    high = at::where(left < 0, high, mu);
    ended = ended.logical_or(left == 0).logical_or_(high - low <= kSumSettled * high);
  }
  const at::Tensor ratio = sums_of_rows(w).reciprocal_().mul_(r.l1_radius);
  w.mul_(at::where((ratio - 1).abs() < kOnSum, ratio, 1));
  if (problem_.has_bias()) {
    found.select(1, problem_.regularized).copy_(problem_.best_bias(all, w));
  }
  const at::Tensor next = found.to(x.scalar_type());
  project_(r, problem_.covered(next));
  x.copy_(at::where(row_values(problem_, next, c, b) < row_values(problem_, x, c, b), next, x));
}

}  // namespace torchbcd
