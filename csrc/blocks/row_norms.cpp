#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "blocks/normed_quadratic.h"
#include "blocks/weight_terms.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr int kSecularSteps = 100;  // of the secular equations; they converge quadratically, from one side
constexpr int kBracketings = 60;    // of mu, where rows have kinks beside the norm
constexpr double kSettled = 1e-15;  // relative change of mu that ends them
constexpr double kSettledSecant = 1e-11;  // a secant's, whose error then is far less
constexpr double kGrowth = 4;             // of the bracket's upper end
constexpr double kOnRadius = 1e-10;       // relative distance of a norm that ends on the radius

at::Tensor row_norms(const at::Tensor& t) { return at::linalg_vector_norm(t, 2, 1, /*keepdim=*/true); }

// |g / (Lambda + mu)| = radius, or mu |g / (Lambda + mu)| = weight: one root mu >= 0 for every row of g,
// which have one each. 1/|g / (Lambda + mu)| is concave in mu. Less the constant 1/radius it rises through
// zero, and Newton's steps from the left stay there; less the line mu/weight, which in the end is steeper, it
// falls through zero, and they stay on the right.
at::Tensor secular_root(const at::Tensor& g, const at::Tensor& eigenvalues, double number, bool is_weight) {
  const at::Tensor length = row_norms(g), largest = eigenvalues.max();
  at::Tensor mu = is_weight ? largest * number / (length - number)
                            : (length / number - largest).clamp_min(0);  // |w| >= |g| / (largest + mu)
  for (int step = 0; step < kSecularSteps; ++step) {
    const at::Tensor shifted = eigenvalues + mu;
    const at::Tensor w = g / shifted;
    const at::Tensor norm = row_norms(w);
    const at::Tensor slope = row_sum(w * (w / shifted)) / norm.pow(3);  // of 1/|w|
    const at::Tensor value = norm.reciprocal() - (is_weight ? mu / number : mu * 0 + 1 / number);
    const at::Tensor next = (mu - value / (is_weight ? slope - 1 / number : slope)).clamp_min(0);
    const bool settled = (next - mu).abs().le(next * kSettled).all().item<bool>();
    mu = next;
    if (settled) {
      break;
    }
  }
  return mu;
}

at::Tensor index_of(const at::Tensor& mask) { return mask.squeeze(1).nonzero().squeeze(1); }

// Leaves `rows` at the roots mu > 0 of `height`, which rises through zero once, from `at_low` < 0 at zero: it
// is given rows and their mu, (m, 1), leaves them there and returns its values. By secants with Anderson and
// Bjorck's (1973) weights for an end that stays, which converge superlinearly, and a step of bisection every
// eighth time, within a bracket that begins at `high` > 0. Rows that have settled are not looked at again.
template <typename Height>
void find_roots(const Height& height, at::Tensor rows, at::Tensor at_low, at::Tensor high) {
  at::Tensor low = at::zeros_like(high);
  at::Tensor at_high = height(rows, high);
  for (int k = 0; k < kBracketings; ++k) {
    const at::Tensor below = at_high < 0, wanting = index_of(below);
    if (wanting.numel() == 0) {
      break;
    }
    low = at::where(below, high, low);
    at_low = at::where(below, at_high, at_low);
    high = at::where(below, high * kGrowth, high);
    at_high.index_copy_(0, wanting, height(rows.index_select(0, wanting), high.index_select(0, wanting)));
  }
  at::Tensor side = at::zeros_like(low), last = high;
  for (int k = 1; k <= kBracketings && rows.numel() > 0; ++k) {
    const at::Tensor secant = high - at_high * (high - low) / (at_high - at_low);
    const at::Tensor middle = at::where(low > 0, (low * high).sqrt(), high / kGrowth);
    const at::Tensor inside = (secant > low).logical_and_(secant < high);
    const at::Tensor mu = k % 8 == 0 ? middle : at::where(inside, secant, middle);
    const at::Tensor there = height(rows, mu);
    const at::Tensor right = there >= 0;
    // What is left of the height of an end that stays twice.
    const at::Tensor part = 1 - there / at::where(right, at_high, at_low);
    const at::Tensor kept = at::where(part > 0, part, 0.5);
    const at::Tensor on_side = at::where(right, 1.0, at::zeros_like(side) - 1);
    const at::Tensor stays = side == on_side;
    at_low = at::where(right, at::where(stays, at_low * kept, at_low), there);
    at_high = at::where(right, there, at::where(stays, at_high * kept, at_high));
    low = at::where(right, low, mu);
    high = at::where(right, mu, high);
    const at::Tensor going = index_of((mu - last)
                                          .abs()
                                          .gt(mu * kSettledSecant)
                                          .logical_and_(there != 0)
                                          .logical_and_(high - low > high * kSettled));
    side = on_side;
    last = mu;
    for (at::Tensor* t : {&rows, &low, &at_low, &high, &at_high, &side, &last}) {
      *t = t->index_select(0, going);
    }
  }
}

}  // namespace

NormedQuadratic::NormedQuadratic(const at::Tensor& plain_hessian, const WeightRegularizer& r, double times,
                                 int64_t columns)
    : hessian(plain_hessian.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)),
      regularizer(r),
      scale(times),
      regularized(columns) {
  hessian.diagonal().narrow(0, 0, columns).add_(times * r.entries.l2);
  if (hessian.size(0) > columns) {
    border = hessian.select(1, columns).narrow(0, 0, columns);
    of_bias = hessian.select(0, columns).select(0, columns).item<double>();
  }
}

at::Tensor NormedQuadratic::of_weight() const {
  const at::Tensor all = hessian.narrow(0, 0, regularized).narrow(1, 0, regularized);
  return has_bias() ? all - at::outer(border, border) / of_bias : all;
}

at::Tensor NormedQuadratic::without_bias(const at::Tensor& of_all) const {
  const at::Tensor of_w = covered(of_all);
  return has_bias() ? of_w - at::outer(of_all.select(1, regularized), border / of_bias) : of_w;
}

at::Tensor NormedQuadratic::best_bias(const at::Tensor& of_all, const at::Tensor& w) const {
  return (of_all.select(1, regularized) - at::mv(w, border)) / of_bias;
}

at::Tensor NormedQuadratic::shifted(const at::Tensor& centre, const at::Tensor& linear) const {
  at::Tensor result = linear.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  covered(result).sub_(covered(centre).to(at::kDouble), scale * regularizer.entries.l2);
  return result;
}

RowNorms::RowNorms(NormedQuadratic problem, QuadraticPlusRegularizer without_norms)
    : problem_(std::move(problem)),
      without_norms_(std::move(without_norms)),
      weight_(problem_.scale * problem_.regularizer.by_unit) {
  std::tie(eigenvalues_, vectors_) = at::linalg_eigh(problem_.of_weight());
  eigenvalues_ = at::maximum(eigenvalues_, eigenvalues_.max() * 1e-16);  // positive, but for rounding
}

// [w b] with H [w b] + mu [w 0] = `of_all`, row by row.
at::Tensor RowNorms::solved(const at::Tensor& of_all, const at::Tensor& mu) const {
  const at::Tensor w =
      at::mm(at::mm(problem_.without_bias(of_all), vectors_).div_(eigenvalues_ + mu), vectors_.t());
  return problem_.has_bias() ? at::cat({w, problem_.best_bias(of_all, w).unsqueeze(1)}, 1) : w;
}

// The minimisers where nothing but the norm has a kink.
at::Tensor RowNorms::smooth(const at::Tensor& centre, const at::Tensor& linear) const {
  const at::Tensor all = at::mm(centre, problem_.hessian).add_(linear);
  const at::Tensor g = at::mm(problem_.without_bias(all), vectors_);
  const double radius = problem_.regularizer.radius;
  at::Tensor mu = at::zeros({g.size(0), 1}, g.options());
  const at::Tensor zero = row_norms(g) <= weight_;
  if (weight_ > 0) {
    const at::Tensor others = index_of(zero.logical_not());
    mu.index_copy_(0, others,
                   secular_root(g.index_select(0, others), eigenvalues_, weight_, /*is_weight=*/true));
  }
  const at::Tensor norm = row_norms(g / (eigenvalues_ + mu));
  const at::Tensor longer = index_of((norm > radius).logical_and_(zero.logical_not()));
  if (longer.numel() > 0) {
    mu.index_copy_(0, longer,
                   secular_root(g.index_select(0, longer), eigenvalues_, radius, /*is_weight=*/false));
  }
  const at::Tensor flag = weight_ > 0 ? zero : at::zeros_like(zero);
  at::Tensor x = solved(all, mu);
  problem_.covered(x).masked_fill_(flag, 0);
  // Once more for what rounding has left of the gradient, about X = C, where it is small.
  at::Tensor rest = linear - at::mm(x - centre, problem_.hessian);
  problem_.covered(rest).sub_(problem_.covered(x) * mu);
  x.add_(solved(rest, mu).masked_fill_(flag, 0));
  if (problem_.has_bias()) {  // with w = 0, b is best
    const at::Tensor b = problem_.best_bias(all, problem_.covered(x));
    const at::Tensor own = x.select(1, problem_.regularized);
    own.copy_(at::where(flag.squeeze(1), b, own));
  }
  return x;
}

// The minimisers with a 1-norm or bounds beside the norm: those of QuadraticPlusRegularizer with mu/2 |w|^2
// besides, where mu |w(mu)|, which rises with mu, has reached `weight`, and |w(mu)|, which falls, the radius.
at::Tensor RowNorms::bracketed(const at::Tensor& x, const at::Tensor& centre,
                               const at::Tensor& linear) const {
  const Regularizer& entries = problem_.regularizer.entries;
  const double radius = problem_.regularizer.radius;
  const double l1 = problem_.scale * entries.l1;
  const ColumnBounds bounds = column_bounds(problem_.regularizer, problem_.regularized, x.scalar_type());
  const auto end = [&](const std::vector<double>& ends) { return bounds.on(x.device(), ends); };
  // A zero row is best where what pulls at it, with its bias at its best, is no longer than the weight.
  const at::Tensor all = at::mm(centre, problem_.hessian).add_(problem_.shifted(centre, linear));
  const at::Tensor g = problem_.without_bias(all);
  const at::Tensor pull = (g - g.clamp(-l1, l1)).clamp(end(bounds.low), end(bounds.high));
  const at::Tensor zero = row_norms(pull) <= weight_;
  at::Tensor solution = x.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  // What is negative for too small a mu: the lesser of 1/|w| - 1/radius and mu/weight - 1/|w|, which are
  // nearly straight. It leaves w(mu), which it finds from where the last mu has left it.
  const auto height = [&](const at::Tensor& rows, const at::Tensor& mu) {
    const at::Tensor own = solution.index_select(0, rows);
    problem_.covered(own).clamp_(end(bounds.low), end(bounds.high));
    without_norms_.minimise_(own, centre.index_select(0, rows), linear.index_select(0, rows), mu);
    solution.index_copy_(0, rows, own);
    const at::Tensor inverse = row_norms(problem_.covered(own)).reciprocal_();
    const at::Tensor within = inverse - 1 / radius;
    return weight_ > 0 ? at::minimum(within, mu.defined() ? mu / weight_ - inverse : -inverse) : within;
  };
  const at::Tensor rows = index_of(zero.logical_not());
  const at::Tensor at_zero = height(rows, /*mu=*/{});
  const at::Tensor wanting = index_of(at_zero < 0), longer = rows.index_select(0, wanting);
  if (longer.numel() > 0) {
    // Where w(0) has the norm r: mu >= weight / r; and largest (r / radius - 1) would do without kinks.
    const at::Tensor norm = row_norms(problem_.covered(solution.index_select(0, longer)));
    const double largest = std::max(eigenvalues_.max().item<double>(), 1e-290);
    const at::Tensor guess =
        ((norm / radius - 1).clamp_min_(1e-16) * largest).add_(norm.reciprocal() * (2 * weight_));
    find_roots(height, longer, at_zero.index_select(0, wanting), guess);
  }
  problem_.covered(solution).masked_fill_(zero, 0);
  if (problem_.has_bias()) {
    solution.select(1, problem_.regularized).copy_(problem_.best_bias(all, problem_.covered(solution)));
  }
  return solution;
}

at::Tensor row_values(const NormedQuadratic& problem, const at::Tensor& x, const at::Tensor& centre,
                      const at::Tensor& linear) {
  const at::Tensor change = x.to(at::kDouble) - centre;
  WeightRegularizer without_square = problem.regularizer;
  without_square.entries.l2 = 0;
  return row_sum(at::mm(change, problem.hessian).mul_(0.5).sub_(linear).mul_(change))
      .add_(row_regularizer(without_square, problem.covered(x)), problem.scale);
}

void RowNorms::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const at::Tensor c = centre.to(at::kDouble), b = problem_.shifted(centre, linear);
  const WeightRegularizer& r = problem_.regularizer;
  const bool kinks = r.entries.l1 != 0 || r.entries.bounded() || r.has_signs();
  const at::Tensor found = kinks ? bracketed(x, c, linear.to(at::kDouble)) : smooth(c, b);
  at::Tensor w = problem_.covered(found);
  if (std::isfinite(r.radius)) {  // on it, rather than where rounding of mu has left the norm
    const at::Tensor ratio = row_norms(w).reciprocal_().mul_(r.radius);
    w.mul_(at::where((ratio - 1).abs() < kOnRadius, ratio, 1));
  }
  const at::Tensor next = found.to(x.scalar_type());
  project_(r, problem_.covered(next));
  x.copy_(at::where(row_values(problem_, next, c, b) < row_values(problem_, x, c, b), next, x));
}

}  // namespace torchbcd
