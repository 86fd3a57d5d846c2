#include "blocks/piecewise_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <variant>
#include <vector>

#include "blocks/bounded_quadratic.h"
#include "blocks/piecewise_lines.h"
#include "blocks/regularized_quadratic.h"
#include "blocks/splitting_start.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

using functors::kInfinity;
// Where it is small, a row has its own Hessian, its descent goes on until it is done, and begins at many
// starts. Beyond so many unknowns of a row, or entries of all Hessians, the rows share the one of the
// steepest slope everywhere, and take a few steps from two starts.
constexpr int64_t kOwnUnknowns = 32;
constexpr int64_t kOwnEntries = 1 << 18;
constexpr int kDescentSteps = 60;
constexpr int kSharedSteps = 10;
constexpr int64_t kMostKinks = 64;          // that a row can be held on at once
constexpr int64_t kChunkEntries = 1 << 20;  // float64 numbers of a chunk's largest array
constexpr int kScattered = 12;
constexpr int kRounds = 3;      // of searches along coordinates
constexpr double kOnKink = 16;  // units in the last place of the data, as large as a kink's argument

// Everything that rows have in common, in float64.
struct Rows {
  Rows(const PiecewiseQuadratic& p, int64_t count, double unit)
      : activation(p.activation),
        lines(p.activation, p.m.options().dtype(at::kDouble)),
        m(p.m.to(at::kDouble)),
        gram(at::mm(m.t(), m)),
        kappa(p.kappa),
        gamma(p.gamma),
        regularizer(with_bounds_of(p.regularizer, p.m.scalar_type())),
        regularized(p.regularized),
        own_hessians(m.size(1) <= kOwnUnknowns && count * m.size(1) * m.size(1) <= kOwnEntries),
        on_kink(kOnKink * unit),
        norms(m.square().sum(1).sqrt_().unsqueeze(0)),
        curvature(at::full({m.size(1)}, kappa, m.options())) {
    curvature.narrow(0, 0, regularized).add_(regularizer.l2);
  }

  // The largest number of entries that an array has for a row.
  int64_t entries() const {
    const int64_t q = m.size(1);
    const int64_t p = m.size(0) * static_cast<int64_t>(lines.kinks.size() + 1);
    return std::max(own_hessians ? q * std::max(q, m.size(0)) : q * kMostKinks, p + q);
  }

  // The inverse of the Hessian where every unit has this slope.
  at::Tensor inverse_hessian(double slope) const {
    at::Tensor hessian = gram * (gamma * slope * slope);
    hessian.diagonal().add_(curvature);
    return at::cholesky_inverse(std::get<0>(at::linalg_cholesky_ex(hessian)));
  }

  const functors::AnyActivation& activation;
  const PiecewiseLines lines;
  const at::Tensor m, gram;  // (p, q), (q, q)
  const double kappa, gamma;
  const Regularizer regularizer;
  const int64_t regularized;
  const bool own_hessians;
  const double on_kink;
  const at::Tensor norms;      // (1, p): |m_j|
  const at::Tensor curvature;  // (q,): kappa + l2
  const at::Tensor on_steepest = inverse_hessian(lines.slopes[lines.steepest()]);
};

// Some rows with their data.
struct Chunk {
  const Rows& rows;
  at::Tensor centre, target, offset;  // offset (m, p) or (1, p)

  Chunk at_rows(const at::Tensor& index) const {
    return {rows, centre.index_select(0, index), target.index_select(0, index),
            offset.size(0) == 1 ? offset : offset.index_select(0, index)};
  }

  // The same rows `times` over.
  Chunk repeated(int64_t times) const {
    return {rows, centre.repeat({times, 1}), target.repeat({times, 1}),
            offset.size(0) == 1 ? offset : offset.repeat({times, 1})};
  }

  at::Tensor product(const at::Tensor& x) const { return product_of(x, rows.m, offset); }
  at::Tensor covered(const at::Tensor& x) const { return x.narrow(1, 0, rows.regularized); }

  void project_(const at::Tensor& x) const {
    if (rows.regularizer.bounded()) {
      covered(x).clamp_(rows.regularizer.low, rows.regularizer.high);
    }
  }

  // (m, 1)
  at::Tensor value(const at::Tensor& x) const {
    const at::Tensor error = target - passes::activation(product(x), rows.activation);
    at::Tensor value = row_sum((x - centre).square_()).mul_(rows.kappa / 2);
    value.add_(row_sum(error.square()), rows.gamma / 2);
    return value.add_(row_regularizer(rows.regularizer, covered(x)));
  }
};

struct Direction {
  at::Tensor d;         // (m, q)
  at::Tensor promised;  // -(slope along d), (m, 1)
};

// The kinks that points are on: which, and the interval in which multipliers hold them there.
struct Kinks {
  at::Tensor active;     // (m, p + q), bool: of units, then of the regulariser
  at::Tensor low, high;  // the same shape
};

class Descent {
 public:
  Descent(const Chunk& chunk, const at::Tensor& x)
      : chunk_(chunk), rows_(chunk.rows), x_(x), u_(chunk.product(x)), piece_(rows_.lines.piece(u_)) {}

  // The direction at x: d = -H^{-1} (g + E^T l).
  Direction direction() const {
    const Kinks kinks = kinks_here();
    const int64_t units = u_.size(1);
    const at::Tensor held = kinks.active.narrow(1, 0, units);
    const at::Tensor slope = at::where(held, 0, rows_.lines.slope.index({piece_}));
    const at::Tensor level = at::where(held, 0, rows_.lines.level.index({piece_}));
    const at::Tensor error = (chunk_.target - slope * u_).sub_(level).mul_(slope);
    at::Tensor gradient = (x_ - chunk_.centre).mul_(rows_.kappa);
    gradient.addmm_(error, rows_.m, 1, -rows_.gamma);
    at::Tensor covered = chunk_.covered(gradient);
    const at::Tensor entries = chunk_.covered(x_);
    covered.add_(entries, rows_.regularizer.l2).add_(entries.sign(), rows_.regularizer.l1);
    const at::Tensor inverse = inverse_hessian(slope);
    at::Tensor d = at::matmul(gradient.unsqueeze(1), inverse).squeeze(1).neg_();
    const int64_t most = kinks.active.sum(1).max().item<int64_t>();
    const int64_t count = std::min(most, kMostKinks);
    if (count > 0) {
      const auto [marks, index] = kinks.active.to(at::kChar).topk(count, 1);
      const at::Tensor real = marks.to(at::kBool);
      const at::Tensor all = at::cat({rows_.m, at::eye(x_.size(1), x_.options())});
      const at::Tensor normals = all.index({index}).mul_(real.unsqueeze(2));  // (m, k, q)
      const at::Tensor images = at::matmul(normals, inverse);
      const at::Tensor l = bounded_quadratic(
          at::matmul(images, normals.transpose(1, 2)), at::matmul(normals, d.unsqueeze(2)).squeeze(2).neg_(),
          at::where(real, kinks.low.gather(1, index), 0), at::where(real, kinks.high.gather(1, index), 0));
      gradient.add_(at::matmul(l.unsqueeze(1), normals).squeeze(1));
      d.sub_(at::matmul(l.unsqueeze(1), images).squeeze(1));
    }
    return {d, row_sum(gradient * d).neg_()};
  }

  // The step along d, (m, 1), to the lowest point of all pieces ahead.
  at::Tensor best_step(const at::Tensor& d) const {
    const PiecewiseLines& lines = rows_.lines;
    const at::Tensor zero = at::zeros({d.size(0), 1}, d.options());
    at::Tensor image = at::matmul(d, rows_.m.t());
    image.masked_fill_(image.abs() <= rows_.norms * row_sum(d.square()).sqrt_() * 1e-15, 0);
    const at::Tensor divisor = at::where(image == 0, 1, image);
    const at::Tensor slope = lines.slope.index({piece_});
    const at::Tensor error = chunk_.target - slope * u_ - lines.level.index({piece_});
    // Along the line it is curvature/2 t^2 + slope t on the first piece; each kink that is met adds to both.
    at::Tensor curvature = row_sum(d.square() * rows_.curvature);
    curvature.add_(row_sum((slope * image).square_()), rows_.gamma);
    at::Tensor first = row_sum((x_ - chunk_.centre) * d).mul_(rows_.kappa);
    first.sub_(row_sum(slope * image * error), rows_.gamma);
    std::vector<at::Tensor> at_kink, more_curvature, more_slope;
    for (size_t k = 0; k < lines.kinks.size(); ++k) {
      const at::Tensor up = (image > 0).logical_and_(u_ <= lines.kinks[k]);
      const at::Tensor down = (image < 0).logical_and_(u_ > lines.kinks[k]);
      const at::Tensor sign = up.to(at::kDouble) - down.to(at::kDouble);
      const double left = lines.slopes[k], right = lines.slopes[k + 1];
      const double a = rows_.gamma * (right * right - left * left);
      const at::Tensor b = (chunk_.target * (left - right))
                               .add_(right * lines.levels[k + 1] - left * lines.levels[k])
                               .mul_(rows_.gamma);
      at_kink.push_back(at::where(up.logical_or(down), (u_ - lines.kinks[k]).neg_() / divisor, kInfinity));
      more_curvature.push_back(sign * image.square() * a);
      more_slope.push_back(sign * image * (u_ * a + b));
    }
    at::Tensor furthest = at::full({d.size(0), 1}, kInfinity, d.options());
    const Regularizer& terms = rows_.regularizer;
    const at::Tensor entries = chunk_.covered(x_), moves = chunk_.covered(d);
    if (entries.numel() > 0 && terms.l2 != 0) {
      first.add_(row_sum(entries * moves), terms.l2);
    }
    if (entries.numel() > 0 && terms.l1 != 0) {
      first.add_(row_sum(at::where(entries == 0, moves.abs(), entries.sign() * moves)), terms.l1);
      const at::Tensor crosses = entries * moves < 0;
      at_kink.push_back(at::where(crosses, entries.neg() / at::where(moves == 0, 1, moves), kInfinity));
      more_curvature.push_back(at::zeros_like(entries));
      more_slope.push_back(at::where(crosses, moves.abs() * (2 * terms.l1), 0));
    }
    if (entries.numel() > 0 && terms.bounded()) {
      for (const bool upper : {false, true}) {
        const double bound = upper ? terms.high : terms.low;
        const at::Tensor towards = upper ? moves > 0 : moves < 0;
        const at::Tensor reach = ((entries - bound).neg_() / at::where(moves == 0, 1, moves)).clamp_min_(0);
        furthest = at::minimum(furthest, at::where(towards, reach, kInfinity).amin(1, true));
      }
    }
    if (at_kink.empty()) {
      return at::minimum(at::where(curvature > 0, first.neg() / curvature, 0), furthest);
    }
    const auto [met, order] = at::cat(at_kink, 1).sort(1);
    const at::Tensor finite = met.isfinite();
    const at::Tensor where_met = at::where(finite, met, 0);
    const at::Tensor more_a = at::where(finite, at::cat(more_curvature, 1).gather(1, order), 0);
    const at::Tensor more_b = at::where(finite, at::cat(more_slope, 1).gather(1, order), 0);
    const at::Tensor more_c = (more_a * where_met * 0.5).add_(more_b).mul_(where_met).neg_();
    const auto from_first = [&](const at::Tensor& more) { return at::cat({zero, more.cumsum(1)}, 1); };
    const at::Tensor a = from_first(more_a).add_(curvature);
    const at::Tensor b = from_first(more_b).add_(first);
    const at::Tensor begin = at::cat({zero, met}, 1);
    const at::Tensor end = at::minimum(at::cat({met, zero + kInfinity}, 1), furthest);
    const at::Tensor lowest =
        at::where(a > 0, b.neg() / at::where(a > 0, a, 1), at::where(b < 0, end, begin));
    const at::Tensor step = at::maximum(at::minimum(lowest, end), begin);
    const at::Tensor value = (a * step * 0.5).add_(b).mul_(step).add_(from_first(more_c));
    const at::Tensor valid = (begin <= furthest).logical_and_(step.isfinite());
    return step.gather(1, at::where(valid, value, kInfinity).argmin(1, /*keepdim=*/true));
  }

  // x + step d; an entry that steps onto a kink of the regulariser is exactly there.
  at::Tensor moved(const at::Tensor& d, const at::Tensor& step) const {
    at::Tensor next = x_.addcmul(d, step);
    if (rows_.regularizer.l1 != 0) {
      at::Tensor entries = chunk_.covered(next);
      entries.masked_fill_(entries.abs() <= chunk_.covered(x_).abs() * 1e-14, 0);
    }
    chunk_.project_(next);
    return next;
  }

 private:
  Kinks kinks_here() const {
    const PiecewiseLines& lines = rows_.lines;
    const at::Tensor scale = rows_.norms * row_sum(x_.square()).sqrt_() + chunk_.offset.abs();
    at::Tensor active = at::zeros(u_.sizes(), u_.options().dtype(at::kBool));
    at::Tensor low = at::zeros_like(u_), high = at::zeros_like(u_);
    for (size_t k = 0; k < lines.kinks.size(); ++k) {
      const at::Tensor near =
          (u_ - lines.kinks[k]).abs_() <= (scale + std::fabs(lines.kinks[k])) * rows_.on_kink;
      const at::Tensor error = chunk_.target - (lines.slopes[k] * lines.kinks[k] + lines.levels[k]);
      const at::Tensor left = error * (-rows_.gamma * lines.slopes[k]);
      const at::Tensor right = error * (-rows_.gamma * lines.slopes[k + 1]);
      const at::Tensor convex = near.logical_and(right >= left);
      active.logical_or_(convex);
      low = at::where(convex, left, low);
      high = at::where(convex, right, high);
    }
    at::Tensor held = at::zeros(x_.sizes(), active.options());
    at::Tensor least = at::zeros_like(x_), most = at::zeros_like(x_);
    const Regularizer& terms = rows_.regularizer;
    const at::Tensor entries = chunk_.covered(x_);
    if (terms.l1 != 0) {
      const at::Tensor here = entries == 0;
      chunk_.covered(held).logical_or_(here);
      chunk_.covered(least).masked_fill_(here, -terms.l1);
      chunk_.covered(most).masked_fill_(here, terms.l1);
    }
    if (terms.bounded()) {
      const at::Tensor below = entries <= terms.low, above = entries >= terms.high;
      chunk_.covered(held).logical_or_(below).logical_or_(above);
      chunk_.covered(least).masked_fill_(below, -kInfinity);
      chunk_.covered(most).masked_fill_(above, kInfinity);
    }
    return {at::cat({active, held}, 1), at::cat({low, least}, 1), at::cat({high, most}, 1)};
  }

  at::Tensor inverse_hessian(const at::Tensor& slope) const {
    if (!rows_.own_hessians) {
      return rows_.on_steepest;
    }
    const at::Tensor columns = rows_.m.t().unsqueeze(0) * (slope.square() * rows_.gamma).unsqueeze(1);
    at::Tensor hessian = at::matmul(columns, rows_.m);
    hessian.diagonal(0, 1, 2).add_(rows_.curvature);
    return at::cholesky_inverse(std::get<0>(at::linalg_cholesky_ex(hessian)));
  }

  const Chunk& chunk_;
  const Rows& rows_;
  at::Tensor x_, u_, piece_;
};

// Descends from x, in place, until no direction is left, and returns the values, (m, 1).
at::Tensor descend_(const Chunk& chunk, const at::Tensor& x) {
  at::Tensor value = chunk.value(x);
  at::Tensor live = at::ones({x.size(0)}, x.options().dtype(at::kBool)).nonzero().squeeze(1);
  const int steps = chunk.rows.own_hessians ? kDescentSteps : kSharedSteps;
  for (int step = 0; step < steps && live.numel() > 0; ++step) {
    const Chunk part = chunk.at_rows(live);
    const at::Tensor here = x.index_select(0, live);
    const Descent descent(part, here);
    const Direction to = descent.direction();
    const at::Tensor next = descent.moved(to.d, descent.best_step(to.d));
    const at::Tensor before = value.index_select(0, live);
    const at::Tensor after = part.value(next);
    const at::Tensor lower = after < before;  // false for a NaN
    at::Tensor(x).index_copy_(0, live, at::where(lower, next, here));
    value.index_copy_(0, live, at::where(lower, after, before));
    const at::Tensor slack = before.abs() * 1e-15;
    const at::Tensor goes_on = lower.logical_and(to.promised > slack).logical_and_(before - after > slack);
    live = live.index_select(0, goes_on.squeeze(1).nonzero().squeeze(1));
  }
  return value;
}

// The rows of `points` (k m, q), k points for each of m rows, with the lowest values (k m, 1): (m, q).
at::Tensor lowest(const at::Tensor& points, const at::Tensor& values, int64_t rows) {
  const at::Tensor best = at::where(values == values, values, kInfinity).view({-1, rows}).argmin(0);
  return points.index_select(0, best.mul(rows).add_(at::arange(rows, best.options())));
}

// The lowest of the points that the lines of all coordinates lead to from x, both ways: over ridges that a
// descent along its direction does not see behind.
at::Tensor searched_coordinates(const Chunk& chunk, const at::Tensor& x) {
  const int64_t rows = x.size(0), columns = x.size(1);
  const at::Tensor axes = at::eye(columns, x.options());
  const at::Tensor d = at::cat({axes, -axes}).repeat_interleave(rows, 0);
  const Chunk many = chunk.repeated(2 * columns);
  const Descent from(many, x.repeat({2 * columns, 1}));
  const at::Tensor there = from.moved(d, from.best_step(d));
  return lowest(there, many.value(there), rows);
}

// The minimiser where every unit lies on the activation's steepest line.
at::Tensor linear_start(const Chunk& chunk) {
  const PiecewiseLines& lines = chunk.rows.lines;
  const double slope = lines.slopes[lines.steepest()], level = lines.levels[lines.steepest()];
  const at::Tensor wanted = (chunk.target - chunk.offset * slope).sub_(level).mul_(chunk.rows.gamma * slope);
  const at::Tensor right = at::matmul(wanted, chunk.rows.m).add_(chunk.centre, chunk.rows.kappa);
  return at::mm(right, chunk.rows.on_steepest);
}

// Points around x, as far away as x is long, in directions that look random and are always the same.
at::Tensor scattered(const at::Tensor& x, int which) {
  const at::Tensor pattern =
      at::arange(x.size(1), x.options()).add_(1).mul_(which * std::sqrt(3.0)).mul_(which + 2);
  return x + pattern.cos_() * row_sum(x.square()).sqrt_();
}

at::Tensor split(const Chunk& chunk, const at::Tensor& x, double ratio) {
  const Rows& rows = chunk.rows;
  const double penalty = ratio * rows.gamma;
  const at::Tensor inverse = rows.inverse_hessian(std::sqrt(ratio)).mul_(penalty);
  return splitting_start(x, chunk.centre, chunk.target, rows.m, chunk.offset, rows.activation, ratio,
                         rows.kappa / penalty,
                         [&](const at::Tensor& right) { return at::mm(right, inverse); });
}

// The lowest points that descents from several starts, (k m, q), lead to.
at::Tensor descended(const Chunk& chunk, const at::Tensor& starts) {
  const int64_t rows = chunk.centre.size(0);
  const Chunk many = chunk.repeated(starts.size(0) / rows);
  many.project_(starts);
  const at::Tensor values = descend_(many, starts);
  return lowest(starts, values, rows);
}

}  // namespace

void PiecewiseQuadratic::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                   const at::Tensor& target) const {
  if (x.numel() == 0) {
    return;
  }
  const Rows rows(*this, x.size(0), unit_of(x.scalar_type()));
  const at::Tensor every =
      offset.defined() ? offset.to(at::kDouble) : at::zeros({1, m.size(0)}, rows.m.options());
  const int64_t size = std::max<int64_t>(1, kChunkEntries / std::max<int64_t>(1, rows.entries()));
  for (int64_t begin = 0; begin < x.size(0); begin += size) {
    const int64_t count = std::min(size, x.size(0) - begin);
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, count).to(at::kDouble); };
    const Chunk chunk{rows, cut(centre), cut(target), every.size(0) == 1 ? every : cut(every)};
    const at::Tensor previous = cut(x);
    at::Tensor best = previous.clone();
    chunk.project_(best);
    std::vector<at::Tensor> starts = {best, linear_start(chunk)};
    if (rows.own_hessians) {
      for (const double ratio : {1.0, 0.3, 0.1}) {
        starts.push_back(split(chunk, best, ratio));
      }
      starts.push_back(at::zeros_like(best));
      for (int k = 1; k <= kScattered; ++k) {
        starts.push_back(scattered(best, k));
      }
    }
    best = descended(chunk, at::cat(starts));
    for (int round = 0; rows.own_hessians && round < kRounds; ++round) {
      best = descended(chunk, at::cat({best, searched_coordinates(chunk, best)}));
    }
    const at::Tensor rounded = best.to(x.scalar_type());
    const at::Tensor lower = chunk.value(rounded.to(at::kDouble)) < chunk.value(previous);
    x.narrow(0, begin, count).copy_(at::where(lower, rounded, x.narrow(0, begin, count)));
  }
}

}  // namespace torchbcd
