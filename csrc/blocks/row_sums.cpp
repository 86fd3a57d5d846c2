#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "blocks/normed_quadratic.h"
#include "blocks/weight_terms.h"
#include "linalg/reductions.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

constexpr int kSumRounds = 16;      // of gradient steps and Newton steps
constexpr int kFirstSumSteps = 20;  // gradient steps of the first round; twice as many in each that follows,
constexpr int kMostSumSteps = 640;  // up to so many
constexpr int kSumNewtonSteps = 4;  // in a row: each leaves an entry at the zero that it has met
constexpr double kOnSum = 1e-12;    // relative distance of a 1-norm from the radius that is rounding's
constexpr double kSumStalled = 1e-15;  // relative decrease in a round that ends it

at::Tensor sums_of_rows(const at::Tensor& w) { return row_sum(w.abs()); }

}  // namespace

RowSums::RowSums(NormedQuadratic problem)
    : problem_(std::move(problem)),
      system_(problem_.of_weight()),
      largest_(at::linalg_eigvalsh(system_).max().item<double>()),
      l1_(problem_.scale * problem_.regularizer.entries.l1),
      radius_(problem_.regularizer.l1_radius) {}

// Rows that are not at their minimum yet. With the bias eliminated a row's objective is
// 1/2 (w - c) S (w - c) - <pull, w - c> + l1 |w|_1.
class RowSums::Rows {
 public:
  Rows(const RowSums& sums, const ColumnBounds& bounds, const at::Tensor& w, at::Tensor centre,
       at::Tensor pull)
      : sums_(sums),
        low_(bounds.on(w.device(), bounds.low)),
        high_(bounds.on(w.device(), bounds.high)),
        centre_(std::move(centre)),
        pull_(std::move(pull)),
        w_(nearest_with_sum(w.clamp(low_, high_), sums_.radius_)) {
    gradient_ = at::mm(w_ - centre_, sums_.system_).sub_(pull_);
  }

  const at::Tensor& w() const { return w_; }
  at::Tensor value() const { return value_at(w_, gradient_); }

  // Accelerated proximal gradients (Beck and Teboulle, 2009), restarted row by row where momentum points
  // uphill.
  void descend(int steps) {
    const double length = 1 / sums_.largest_;
    at::Tensor x = w_, slope = gradient_, from = w_, slope_from = gradient_;
    double t = 1;
    for (int k = 0; k < steps; ++k) {
      at::Tensor next = from - slope_from * length;
      if (sums_.l1_ != 0) {
        next.sub_(next.clamp(-sums_.l1_ * length, sums_.l1_ * length));
      }
      next = nearest_with_sum(next.clamp_(low_, high_), sums_.radius_);
      const at::Tensor slope_next = slope_from + at::mm(next - from, sums_.system_);
      const at::Tensor change = next - x;
      const double following = (1 + std::sqrt(1 + 4 * t * t)) / 2;
      const at::Tensor part = at::where(row_sum((from - next) * change) > 0, 0,
                                        at::ones_like(w_.narrow(1, 0, 1)) * ((t - 1) / following));
      from = next + part * change;
      slope_from = slope_next + part * (slope_next - slope);
      x = next;
      slope = slope_next;
      t = following;
    }
    go_where_lower(x, at::mm(x - centre_, sums_.system_).sub_(pull_));
  }

  // A step of each row to the minimiser over its entries that are not zero, with their signs, and on the
  // bound if it is there and would leave it outwards; as far as to the first zero that an entry meets, or to
  // the bound.
  void newton() {
    const at::Tensor free = w_ != 0;
    const int64_t most = free.sum(1).max().item<int64_t>();
    if (most == 0) {
      return;
    }
    const auto [marks, index] = free.to(at::kChar).topk(most, 1);
    const at::Tensor real = marks.to(at::kBool);
    const at::Tensor signs = at::where(real, w_.sign().gather(1, index), 0);
    const at::Tensor downhill = at::where(real, gradient_.gather(1, index).neg_(), 0).sub_(signs, sums_.l1_);
    const at::Tensor wanted = at::stack({downhill, signs}, 2);
    const at::Tensor solved = solve_on_entries(sums_.system_, index, real, wanted);
    const at::Tensor size_now = sums_of_rows(w_);
    const at::Tensor touches = size_now >= sums_.radius_ * (1 - kOnSum);
    const at::Tensor free_move = solved.select(2, 0), along_signs = solved.select(2, 1);
    const at::Tensor growth = row_sum(signs * free_move);
    const at::Tensor held = touches.logical_and(growth > 0);
    const at::Tensor mu = at::where(held, growth / row_sum(signs * along_signs), 0);
    const at::Tensor move =
        at::zeros_like(w_).scatter_(1, index, at::where(real, free_move - mu * along_signs, 0));
    const at::Tensor to_zero = at::where(w_ * move < 0, -w_ / at::where(move == 0, 1, move), 1);
    at::Tensor part = to_zero.amin(1, /*keepdim=*/true).clamp_max_(1);
    const at::Tensor room = (sums_.radius_ - size_now).clamp_min_(0);
    part = at::where((growth > 0).logical_and(touches.logical_not()),
                     at::minimum(part, room / growth.clamp_min(1e-300)), part);
    at::Tensor next = w_ + part * move;
    next.masked_fill_((next * w_ < 0).logical_or_(next.abs() <= w_.abs() * 1e-14), 0);
    go_where_lower(next, gradient_ + at::mm(next - w_, sums_.system_));
  }

  // How far zero is from the subdifferential, (m, 1): the largest entry.
  at::Tensor distance() const {
    const at::Tensor free = w_ != 0;
    const at::Tensor touches = sums_of_rows(w_) >= sums_.radius_ * (1 - kOnSum);
    const at::Tensor outwards =
        row_sum(at::where(free, -gradient_ * w_.sign(), 0)) / free.sum(1, /*keepdim=*/true).clamp_min(1);
    const at::Tensor pressed = at::where(touches, outwards, sums_.l1_).clamp_min_(sums_.l1_);
    const at::Tensor outside =
        (low_ >= 0).logical_and(gradient_ > 0).logical_or_((high_ <= 0).logical_and(gradient_ < 0));
    const at::Tensor inward = gradient_.masked_fill(outside, 0);
    const at::Tensor at_zero = (inward.abs() - pressed).clamp_min_(0);
    return at::where(free, (gradient_ + w_.sign() * pressed).abs_(), at_zero).amax(1, /*keepdim=*/true);
  }

  void keep(const at::Tensor& index) {
    for (at::Tensor* t : {&centre_, &pull_, &w_, &gradient_}) {
      *t = t->index_select(0, index);
    }
  }

 private:
  at::Tensor value_at(const at::Tensor& w, const at::Tensor& gradient) const {
    return row_sum((gradient - pull_).mul_(w - centre_)).mul_(0.5).add_(sums_of_rows(w), sums_.l1_);
  }
  void go_where_lower(const at::Tensor& next, const at::Tensor& gradient) {
    const at::Tensor lower = value_at(next, gradient) < value();
    w_ = at::where(lower, next, w_);
    gradient_ = at::where(lower, gradient, gradient_);
  }

  const RowSums& sums_;
  const at::Tensor low_, high_;  // (1, d)
  at::Tensor centre_, pull_, w_, gradient_;
};

void RowSums::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const WeightRegularizer& r = problem_.regularizer;
  const at::Tensor c = centre.to(at::kDouble), b = problem_.shifted(centre, linear);
  const at::Tensor pull = problem_.without_bias(b);
  const double tolerance = x.scalar_type() == at::kDouble ? 1e-10 : 1e-7;
  const at::Tensor found = x.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  at::Tensor w = problem_.covered(found);
  // Or what rounding of w alone does to a gradient.
  const at::Tensor rounding = w.abs().amax(1, /*keepdim=*/true).mul_(largest_ * unit_of(at::kDouble));
  const at::Tensor enough =
      at::maximum(pull.abs().amax(1, /*keepdim=*/true).clamp_min_(l1_).mul_(tolerance), rounding);
  Rows rows(*this, column_bounds(r, problem_.regularized, x.scalar_type()), w, problem_.covered(c), pull);
  at::Tensor live = at::arange(x.size(0), x.options().dtype(at::kLong));
  for (int round = 0; round < kSumRounds && live.numel() > 0; ++round) {
    const at::Tensor before = rows.value();
    rows.descend(std::min(kFirstSumSteps << std::min(round, 10), kMostSumSteps));
    for (int step = 0; step < kSumNewtonSteps; ++step) {
      rows.newton();
    }
    w.index_copy_(0, live, rows.w());
    const at::Tensor value = rows.value();
    const at::Tensor goes_on = rows.distance()
                                   .gt(enough.index_select(0, live))
                                   .logical_and_(before - value > value.abs() * kSumStalled);
    const at::Tensor left = goes_on.squeeze(1).nonzero().squeeze(1);
    live = live.index_select(0, left);
    rows.keep(left);
  }
  if (problem_.has_bias()) {
    const at::Tensor all = at::mm(c, problem_.hessian).add_(b);
    found.select(1, problem_.regularized).copy_(problem_.best_bias(all, w));
  }
  const at::Tensor next = found.to(x.scalar_type());
  project_(r, problem_.covered(next));
  x.copy_(at::where(row_values(problem_, next, c, b) < row_values(problem_, x, c, b), next, x));
}

}  // namespace torchbcd
