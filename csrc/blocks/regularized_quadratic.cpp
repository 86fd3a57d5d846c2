#include "blocks/regularized_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "functors/scalar.h"
#include "linalg/reductions.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

using functors::kInfinity;
constexpr int64_t kColumns = 32;    // columns between two products with H
constexpr int kPasses = 400;        // of coordinate descent, at the most
constexpr int kFirstPasses = 8;     // before the first Newton step
constexpr double kStalled = 1e-15;  // relative decrease between two Newton steps that ends it
constexpr int kPassesBetween = 2;   // and the next ones
constexpr int kNewtonSteps = 4;     // in a row: each leaves an entry on the kink that it has met
constexpr double kLevel = 2e-15;    // relative rise of the value that is rounding's

}  // namespace

double regularizer_value(const Regularizer& regularizer, const at::Tensor& values) {
  double value = 0;
  if (values.numel() == 0) {
    return value;
  }
  if (regularizer.bounded()) {
    const Regularizer bounds = with_bounds_of(regularizer, values.scalar_type());
    if (values.min().item<double>() < bounds.low || values.max().item<double>() > bounds.high) {
      return kInfinity;
    }
  }
  if (regularizer.l1 != 0) {
    value += regularizer.l1 * values.abs().sum(at::kDouble).item<double>();
  }
  if (regularizer.l2 != 0) {
    value += 0.5 * regularizer.l2 * values.to(at::kDouble).square().sum().item<double>();
  }
  return value;
}

at::Tensor row_regularizer(const Regularizer& regularizer, const at::Tensor& values) {
  at::Tensor value = at::zeros({values.size(0), 1}, values.options().dtype(at::kDouble));
  if (regularizer.l2 != 0) {
    value.add_(row_sum(values.square()), regularizer.l2 / 2);
  }
  if (regularizer.l1 != 0) {
    value.add_(row_sum(values.abs()), regularizer.l1);
  }
  if (regularizer.bounded()) {
    const at::Tensor outside = values.lt(regularizer.low).logical_or_(values.gt(regularizer.high));
    value.masked_fill_(outside.any(1, /*keepdim=*/true), kInfinity);
  }
  return value;
}

Regularizer with_bounds_of(const Regularizer& regularizer, at::ScalarType type) {
  if (type != at::kFloat) {
    return regularizer;
  }
  // GCC 12 vectorises two conversions side by side, and drops them; hence volatile.
  const auto narrowed = [](double number) {
    const volatile float narrow = static_cast<float>(number);
    return static_cast<double>(narrow);
  };
  Regularizer result = regularizer;
  result.low = narrowed(regularizer.low);
  result.high = narrowed(regularizer.high);
  return result;
}

bool ColumnBounds::any() const {
  const auto finite = [](double end) { return std::isfinite(end); };
  return std::any_of(low.begin(), low.end(), finite) || std::any_of(high.begin(), high.end(), finite);
}

at::Tensor ColumnBounds::on(const at::Device& device, const std::vector<double>& ends) const {
  return at::tensor(ends, at::kDouble).unsqueeze(0).to(device);
}

ColumnBounds column_bounds(const WeightRegularizer& regularizer, int64_t columns, at::ScalarType type) {
  const Regularizer entries = with_bounds_of(regularizer.entries, type);
  ColumnBounds bounds{std::vector<double>(columns, entries.low), std::vector<double>(columns, entries.high)};
  for (const int64_t j : columns > 0 ? regularizer.nonnegative : std::vector<int64_t>()) {
    bounds.low.at(j) = std::max(bounds.low.at(j), 0.0);
  }
  for (const int64_t j : columns > 0 ? regularizer.nonpositive : std::vector<int64_t>()) {
    bounds.high.at(j) = std::min(bounds.high.at(j), 0.0);
  }
  return bounds;
}

QuadraticPlusRegularizer::QuadraticPlusRegularizer(const at::Tensor& hessian,
                                                   const WeightRegularizer& regularizer, double scale,
                                                   int64_t regularized)
    : hessian_(hessian.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true)),
      regularizer_(regularizer),
      l1_(scale * regularizer.entries.l1),
      l2_(scale * regularizer.entries.l2),
      regularized_(regularized) {
  hessian_.diagonal().narrow(0, 0, regularized).add_(l2_);
  const at::Tensor diagonal = hessian_.diagonal().contiguous().cpu();
  diagonal_.assign(diagonal.const_data_ptr<double>(), diagonal.const_data_ptr<double>() + diagonal.numel());
}

// Some rows: where they are, and their gradient of the smooth part there.
class QuadraticPlusRegularizer::Rows {
 public:
  Rows(const QuadraticPlusRegularizer& problem, const ColumnBounds& bounds, const at::Tensor& x,
       const at::Tensor& centre, const at::Tensor& linear, const at::Tensor& ridge)
      : problem_(problem),
        bounds_(bounds),
        bounded_(bounds.any()),
        low_(bounds.on(x.device(), bounds.low)),
        high_(bounds.on(x.device(), bounds.high)),
        x_(wide(x)),
        centre_(wide(centre)),
        linear_(wide(linear)),
        ridge_(ridge) {
    if (problem_.l2_ != 0) {  // l2/2 |x|^2 = l2/2 |x - c|^2 + l2 <c, x - c> + ...
      covered(linear_).sub_(covered(centre_), problem_.l2_);
    }
    if (ridge_.defined()) {
      covered(linear_).sub_(covered(centre_) * ridge_);
    }
    set_gradient();
  }

  const at::Tensor& x() const { return x_; }

  // The objective up to a constant, (m, 1).
  at::Tensor value() const {
    const at::Tensor entries = covered(x_);
    at::Tensor value = row_sum((gradient_ - linear_).mul_(x_ - centre_))
                           .mul_(0.5)
                           .add_(row_regularizer({.l1 = problem_.l1_}, entries));
    if (bounded_) {
      const at::Tensor outside = entries.lt(low_).logical_or_(entries.gt(high_));
      value.masked_fill_(outside.any(1, /*keepdim=*/true), kInfinity);
    }
    return value;
  }

  // The distance of zero from the subdifferential, entry by entry.
  at::Tensor distance() const {
    const at::Tensor entries = covered(x_);
    at::Tensor distance = gradient_.clone();
    at::Tensor of_covered = covered(distance);
    if (problem_.l1_ != 0) {
      const at::Tensor at_zero = of_covered - of_covered.clamp(-problem_.l1_, problem_.l1_);
      of_covered.copy_(at::where(entries == 0, at_zero, of_covered + entries.sign() * problem_.l1_));
    }
    if (bounded_) {  // on a bound only what leads inside counts
      of_covered.masked_fill_((entries <= low_).logical_and_(of_covered > 0), 0);
      of_covered.masked_fill_((entries >= high_).logical_and_(of_covered < 0), 0);
    }
    return distance.abs_();
  }

  // One pass of coordinate descent over all columns.
  void descend() {
    const at::Tensor& h = problem_.hessian_;
    const int64_t columns = x_.size(1);
    for (int64_t begin = 0; begin < columns; begin += kColumns) {
      const int64_t width = std::min(kColumns, columns - begin);
      const at::Tensor panel = h.narrow(0, begin, width);
      const at::Tensor own = panel.narrow(1, begin, width);
      const at::Tensor moves = at::zeros_like(x_.narrow(1, begin, width));
      for (int64_t j = 0; j < width; ++j) {
        const double curvature = problem_.diagonal_[static_cast<size_t>(begin + j)];
        at::Tensor entry = x_.select(1, begin + j);
        at::Tensor slope = gradient_.select(1, begin + j);
        if (j > 0) {
          slope = slope + at::mv(moves.narrow(1, 0, j), own.select(1, j).narrow(0, 0, j));
        }
        const bool regularized = begin + j < problem_.regularized_;
        at::Tensor next, threshold;
        if (regularized && ridge_.defined()) {
          const at::Tensor curvatures = ridge_.squeeze(1) + curvature;
          next = entry - slope / curvatures;
          threshold = problem_.l1_ / curvatures;
        } else {
          next = entry - slope / curvature;
        }
        if (regularized) {
          if (threshold.defined() && problem_.l1_ != 0) {
            next.sub_(next.clamp(-threshold, threshold));
          } else if (problem_.l1_ != 0) {
            next.sub_(next.clamp(-problem_.l1_ / curvature, problem_.l1_ / curvature));
          }
          next.clamp_(bounds_.low[static_cast<size_t>(begin + j)],
                      bounds_.high[static_cast<size_t>(begin + j)]);
        }
        moves.select(1, j).copy_(next - entry);
        entry.copy_(next);
      }
      gradient_.addmm_(moves, panel);
      const int64_t with_ridge = std::min(width, problem_.regularized_ - begin);
      if (ridge_.defined() && with_ridge > 0) {
        gradient_.narrow(1, begin, with_ridge).addcmul_(moves.narrow(1, 0, with_ridge), ridge_);
      }
    }
  }

  // A Newton step of each row on its entries that are on no kink. Where it would cross some, entries stop at
  // those that they meet, and the step has the length that is best of some, that up to the first kink among
  // them.
  // Whether some row has met a kink, so that another step may get further.
  bool newton() {
    const at::Tensor free = free_entries();
    const int64_t most = free.sum(1).max().item<int64_t>();
    if (most == 0) {
      return false;
    }
    const auto [marks, index] = free.to(at::kChar).topk(most, 1);
    const at::Tensor real = marks.to(at::kBool);
    at::Tensor slope = gradient_.clone();
    covered(slope).add_(covered(x_).sign(), problem_.l1_);
    const at::Tensor wanted = at::where(real, slope.gather(1, index).neg_(), 0);
    const at::Tensor ridge =
        ridge_.defined() ? ridge_ * index.lt(problem_.regularized_).logical_and_(real) : ridge_;
    const at::Tensor step =
        solve_on_entries(problem_.hessian_, index, real, wanted.unsqueeze(2), ridge).squeeze(2);
    const at::Tensor move = at::zeros_like(x_).scatter_(1, index, at::where(real, step, 0));
    const at::Tensor up_to_a_kink = reach(move);
    std::vector<at::Tensor> points = {stopped_at_kinks((move * up_to_a_kink).add_(x_))};
    for (const double part : {1.0, 0.5, 0.25, 0.125, 0.0625}) {
      points.push_back(stopped_at_kinks(x_ + move * part));
    }
    go_to_lowest(points);
    return up_to_a_kink.lt(1).any().item<bool>();
  }

  void keep(const at::Tensor& index) {
    x_ = x_.index_select(0, index);
    centre_ = centre_.index_select(0, index);
    linear_ = linear_.index_select(0, index);
    gradient_ = gradient_.index_select(0, index);
    ridge_ = ridge_.defined() ? ridge_.index_select(0, index) : ridge_;
  }

 private:
  void set_gradient() {
    const at::Tensor change = x_ - centre_;
    gradient_ = at::mm(change, problem_.hessian_).sub_(linear_);
    if (ridge_.defined()) {
      covered(gradient_).addcmul_(covered(change), ridge_);
    }
  }
  at::Tensor covered(const at::Tensor& t) const { return t.narrow(1, 0, problem_.regularized_); }
  at::Tensor free_entries() const {
    at::Tensor free = at::ones(x_.sizes(), x_.options().dtype(at::kBool));
    const at::Tensor entries = covered(x_);
    covered(free).copy_(entries.gt(low_).logical_and_(entries.lt(high_)));
    if (problem_.l1_ != 0) {
      covered(free).logical_and_(entries.ne(0));
    }
    return free;
  }

  // The part of a move, (m, 1), after which the first entry meets a kink; 1 where none does.
  at::Tensor reach(const at::Tensor& move) const {
    at::Tensor part = at::ones({x_.size(0), 1}, x_.options());
    const at::Tensor entries = covered(x_), moves = covered(move);
    const at::Tensor divisor = at::where(moves == 0, 1, moves);
    const auto meet = [&](const at::Tensor& kink, const at::Tensor& towards) {
      const at::Tensor when = at::where(towards, (entries - kink).neg_() / divisor, 1);
      part = at::minimum(part, when.amin(1, true).clamp_min_(0));
    };
    if (entries.numel() == 0) {
      return part;
    }
    if (problem_.l1_ != 0) {
      meet(at::zeros({}, entries.options()), entries * moves < 0);
    }
    if (bounded_) {
      meet(low_, moves < 0);
      meet(high_, moves > 0);
    }
    return part;
  }

  // Entries that have crossed a kink, or all but met one, are on it.
  at::Tensor stopped_at_kinks(const at::Tensor& next) const {
    at::Tensor entries = covered(next);
    const at::Tensor before = covered(x_);
    if (problem_.l1_ != 0) {
      entries.masked_fill_((entries * before < 0).logical_or_(entries.abs() <= before.abs() * 1e-14), 0);
    }
    if (bounded_) {
      const auto met = [&](const at::Tensor& bound) {
        return (entries - bound).abs().lt((before - bound).abs() * 1e-14);
      };
      entries.copy_(at::where(met(low_), low_, at::where(met(high_), high_, entries))).clamp_(low_, high_);
    }
    return next;
  }

  // Goes to the best of some points that is better than here; to the first one, a step down to a kink, also
  // where rounding hides that it is: or the entry that has met the kink would be in the way of all that
  // follow.
  void go_to_lowest(const std::vector<at::Tensor>& points) {
    at::Tensor best = value();
    best = best + best.abs() * kLevel;
    at::Tensor x = x_, gradient = gradient_;
    for (const at::Tensor& next : points) {
      x_ = next;
      set_gradient();
      const at::Tensor there = value();
      const at::Tensor lower = there < best;
      x = at::where(lower, x_, x);
      gradient = at::where(lower, gradient_, gradient);
      best = at::where(lower, there, best);
    }
    x_ = x;
    gradient_ = gradient;
  }

  static at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble, false, /*copy=*/true); }

  const QuadraticPlusRegularizer& problem_;
  const ColumnBounds& bounds_;
  const bool bounded_;
  const at::Tensor low_, high_;  // (1, regularised columns)
  at::Tensor x_, centre_, linear_, gradient_, ridge_;
};

void QuadraticPlusRegularizer::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                         const at::Tensor& linear, const at::Tensor& ridge) const {
  if (x.numel() == 0) {
    return;
  }
  const double tolerance = ridge.defined() ? 1e-14 : x.scalar_type() == at::kDouble ? 1e-10 : 1e-7;
  const ColumnBounds bounds = column_bounds(regularizer_, regularized_, x.scalar_type());
  Rows rows(*this, bounds, x, centre, linear, ridge);
  const at::Tensor enough = linear.abs().amax(1, true).to(at::kDouble).clamp_min_(l1_).mul_(tolerance);
  const at::Tensor start = rows.value();
  const at::Tensor solution = rows.x().clone();
  at::Tensor live = at::arange(x.size(0), x.options().dtype(at::kLong));
  at::Tensor before = start;
  const int first = ridge.defined() ? 1 : kFirstPasses;  // searches for ridges begin close to where they end
  for (int pass = 1; pass <= kPasses && live.numel() > 0; ++pass) {
    rows.descend();
    at::Tensor goes_on = rows.distance().amax(1, true).gt(enough.index_select(0, live));
    if (pass >= first && (pass - first) % kPassesBetween == 0) {
      for (int step = 0; step < kNewtonSteps && rows.newton(); ++step) {
      }
      const at::Tensor value = rows.value();
      goes_on.logical_and_(before - value >
                           value.abs() * kStalled);  // rounding may keep it from ending earlier
      before = value;
    }
    solution.index_copy_(0, live, rows.x());
    const at::Tensor left = goes_on.squeeze(1).nonzero().squeeze(1);
    if (left.numel() < live.numel()) {
      live = live.index_select(0, left);
      before = before.index_select(0, left);
      rows.keep(left);
    }
  }
  const at::Tensor rounded = solution.to(x.scalar_type());
  if (ridge.defined()) {
    x.copy_(rounded);
    return;
  }
  const at::Tensor end = Rows(*this, bounds, rounded, centre, linear, ridge).value();
  x.copy_(at::where(end < start, rounded, x));
}

}  // namespace torchbcd
