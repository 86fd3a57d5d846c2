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

constexpr int kNewtonSteps = 100;      // of the secular equations; they converge quadratically, from one side
constexpr int kBracketings = 60;       // of mu, where rows have kinks beside the norm
constexpr double kSettled = 1e-15;     // relative change of mu that ends them
constexpr double kLeastRatio = 1e-12;  // of the largest eigenvalue: where the bracket of mu begins
constexpr double kGrowth = 1e3;        // of its other end

at::Tensor row_norms(const at::Tensor& t) { return at::linalg_vector_norm(t, 2, 1, /*keepdim=*/true); }

// |g / (Lambda + mu)| = radius, or mu |g / (Lambda + mu)| = weight: one root mu >= 0 for every row of g,
// which have one each. 1/|g / (Lambda + mu)| is concave in mu. Less the constant 1/radius it rises through
// zero, and Newton's steps from the left stay there; less the line mu/weight, which in the end is steeper, it
// falls through zero, and they stay on the right.
at::Tensor secular_root(const at::Tensor& g, const at::Tensor& eigenvalues, double number, bool is_weight) {
  const at::Tensor length = row_norms(g), largest = eigenvalues.max();
  at::Tensor mu = is_weight ? largest * number / (length - number)
                            : (length / number - largest).clamp_min(0);  // |w| >= |g| / (largest + mu)
  for (int step = 0; step < kNewtonSteps; ++step) {
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

}  // namespace

NormedQuadratic::NormedQuadratic(const at::Tensor& plain_hessian, const WeightRegularizer& r, double times,
                                 int64_t columns)
    : hessian(plain_hessian.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)),
      regularizer(r),
      scale(times),
      regularized(columns) {
  hessian.diagonal().narrow(0, 0, columns).add_(times * r.entries.l2);
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
  const int64_t d = problem_.regularized;
  at::Tensor of_rows = problem_.hessian.narrow(0, 0, d).narrow(1, 0, d);
  if (problem_.has_bias()) {
    border_ = problem_.hessian.select(1, d).narrow(0, 0, d);
    of_bias_ = problem_.hessian.select(0, d).select(0, d).item<double>();
    of_rows = of_rows - at::outer(border_, border_) / of_bias_;
  }
  std::tie(eigenvalues_, vectors_) = at::linalg_eigh(of_rows);
  eigenvalues_ = at::maximum(eigenvalues_, eigenvalues_.max() * 1e-16);  // positive, but for rounding
}

// Of right-hand sides for [w b], those for w once b is eliminated.
at::Tensor RowNorms::without_bias(const at::Tensor& of_all) const {
  const at::Tensor of_w = problem_.covered(of_all);
  return border_.defined() ? of_w - at::outer(of_all.select(1, problem_.regularized), border_ / of_bias_)
                           : of_w;
}

// [w b] with H [w b] + mu [w 0] = `of_all`, row by row.
at::Tensor RowNorms::solved(const at::Tensor& of_all, const at::Tensor& mu) const {
  const at::Tensor w = at::mm(at::mm(without_bias(of_all), vectors_).div_(eigenvalues_ + mu), vectors_.t());
  if (!border_.defined()) {
    return w;
  }
  const at::Tensor b = (of_all.select(1, problem_.regularized) - at::mv(w, border_)) / of_bias_;
  return at::cat({w, b.unsqueeze(1)}, 1);
}

// The minimisers where nothing but the norm has a kink.
at::Tensor RowNorms::smooth(const at::Tensor& centre, const at::Tensor& linear) const {
  const at::Tensor all = at::mm(centre, problem_.hessian).add_(linear);
  const at::Tensor g = at::mm(without_bias(all), vectors_);
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
  if (border_.defined()) {  // with w = 0, b is best
    const at::Tensor b =
        (all.select(1, problem_.regularized) - at::mv(problem_.covered(x), border_)) / of_bias_;
    const at::Tensor own = x.select(1, problem_.regularized);
    own.copy_(at::where(flag.squeeze(1), b, own));
  }
  return x;
}

// The minimisers with a 1-norm or bounds beside the norm: those of QuadraticPlusRegularizer with mu/2 |w|^2
// besides, where mu |w(mu)|, which rises with mu, is `weight`, or |w(mu)|, which falls, is the radius. What
// is bracketed, in log mu, is the lesser of log(mu |w| / weight) and log(radius / |w|).
at::Tensor RowNorms::bracketed(const at::Tensor& x, const at::Tensor& centre,
                               const at::Tensor& linear) const {
  const Regularizer& entries = problem_.regularizer.entries;
  const double radius = problem_.regularizer.radius;
  const double l1 = problem_.scale * entries.l1;
  const ColumnBounds bounds = column_bounds(problem_.regularizer, problem_.regularized, x.scalar_type());
  const auto end = [&](const std::vector<double>& ends) { return bounds.on(x.device(), ends); };
  // A zero row is best where what pulls at it, with its bias at its best, is no longer than the weight.
  const at::Tensor g = without_bias(at::mm(centre, problem_.hessian).add_(problem_.shifted(centre, linear)));
  const at::Tensor pull = (g - g.clamp(-l1, l1)).clamp(end(bounds.low), end(bounds.high));
  const at::Tensor zero = row_norms(pull) <= weight_;
  at::Tensor solution = x.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  // w(mu), from where the last mu has left it.
  const auto at_mu = [&](const at::Tensor& mu) {
    problem_.covered(solution).clamp_(end(bounds.low), end(bounds.high));
    without_norms_.minimise_(solution, centre, linear, mu);
    return row_norms(problem_.covered(solution));
  };
  const auto height = [&](const at::Tensor& mu, const at::Tensor& norm) {
    const at::Tensor below = (norm.reciprocal() * radius).log();
    return weight_ > 0 ? at::minimum((mu * norm / weight_).log(), below) : below;
  };
  const double largest = std::max(eigenvalues_.max().item<double>(), 1e-290);
  at::Tensor low = at::zeros({x.size(0), 1}, solution.options()) + std::log(kLeastRatio * largest);
  at::Tensor high = at::zeros_like(low) + std::log(largest);
  at::Tensor at_low = height(low.exp(), at_mu(low.exp()));
  at::Tensor at_high = height(high.exp(), at_mu(high.exp()));
  for (int k = 0; k < kBracketings && at_high.masked_fill(zero, 1).lt(0).any().item<bool>(); ++k) {
    high = at::where(at_high < 0, high + std::log(kGrowth), high);
    at_high = height(high.exp(), at_mu(high.exp()));
  }
  // The Illinois method, which halves the height of an end that stays; a step of bisection every third time.
  at::Tensor s = at::where(at_low >= 0, low, high);
  for (int k = 0; k < kBracketings; ++k) {
    const at::Tensor secant = high - at_high * (high - low) / (at_high - at_low);
    const at::Tensor middle = (low + high) / 2;
    const at::Tensor inside = (secant > low).logical_and_(secant < high);
    s = at::where(at_low >= 0, low, k % 3 == 2 ? middle : at::where(inside, secant, middle));
    const at::Tensor there = height(s.exp(), at_mu(s.exp()));
    const at::Tensor right = there >= 0;
    const at::Tensor done = zero.logical_or(at_low >= 0)
                                .logical_or_(high - low <= kSettled * s.abs() + 1e-14)
                                .logical_or_(there.abs() <= 1e-13);
    const at::Tensor next_at_low = at::where(right, at_low / 2, there);
    at_high = at::where(right, there, at_high / 2);
    high = at::where(right, s, high);
    low = at::where(right, low, s);
    at_low = at::where(at_low >= 0, at_low, next_at_low);
    if (done.all().item<bool>()) {
      break;
    }
  }
  if (weight_ > 0) {
    problem_.covered(solution).masked_fill_(zero, 0);
  }
  if (border_.defined()) {
    const at::Tensor all = at::mm(centre, problem_.hessian).add_(problem_.shifted(centre, linear));
    solution.select(1, problem_.regularized)
        .copy_((all.select(1, problem_.regularized) - at::mv(problem_.covered(solution), border_)) /
               of_bias_);
  }
  return solution;
}

// The objective of each row up to a constant, (m, 1).
at::Tensor RowNorms::values(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const at::Tensor change = x.to(at::kDouble) - centre;
  WeightRegularizer without_square = problem_.regularizer;
  without_square.entries.l2 = 0;
  return row_sum(at::mm(change, problem_.hessian).mul_(0.5).sub_(linear).mul_(change))
      .add_(row_regularizer(without_square, problem_.covered(x)), problem_.scale);
}

void RowNorms::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const at::Tensor c = centre.to(at::kDouble), b = problem_.shifted(centre, linear);
  const WeightRegularizer& r = problem_.regularizer;
  const bool kinks = r.entries.l1 != 0 || r.entries.bounded() || r.has_signs();
  const at::Tensor next =
      (kinks ? bracketed(x, c, linear.to(at::kDouble)) : smooth(c, b)).to(x.scalar_type());
  project_(r, problem_.covered(next));
  x.copy_(at::where(values(next, c, b) < values(x, c, b), next, x));
}

}  // namespace torchbcd
