// The hinge of a row's whole output, l(v; y) = max(0, 1 - y'v) (Zeng et al., proof of Theorem 1, (a3)), and
// its prox argmin over v of weight l(v; y) + gamma/2 |v - b|^2 + sum_c r(v_c).
//
// The loss is the largest lambda (1 - y'v) of all lambda in [0, weight]. For a given lambda the minimiser is,
// entry by entry, v(lambda) = argmin of r(v_c) + gamma/2 (v_c - b_c - lambda y_c/gamma)^2, and y'v(lambda)
// never falls as lambda rises. So lambda is 0 where y'v(0) >= 1, the weight where y'v(weight) <= 1, and
// between them the root of y'v(lambda) = 1: in closed form where r is a squared norm or nothing, otherwise
// that of a function made of lines, by Newton's method inside a bracket, which ends on the root's own line.
#pragma once

#include <cstdint>

#include "functors/regularizers.h"
#include "functors/traits.h"

namespace torchbcd::functors {

// One row's problem. Entry c of targets and centre is `stride` numbers after entry c - 1.
template <typename T>
struct RowHingeRow {
  const T* target;
  const T* centre;
  T* out;
  int64_t target_stride, centre_stride, out_stride;
  int64_t classes;
  double weight;  // of the loss
  double gamma;
  Regularizer regularizer;

  TORCHBCD_HOST_DEVICE double y(int64_t c) const { return static_cast<double>(target[c * target_stride]); }
  TORCHBCD_HOST_DEVICE double b(int64_t c) const { return static_cast<double>(centre[c * centre_stride]); }

  struct Entry {
    double v;
    double slope;  // of y_c v_c in lambda
  };

  TORCHBCD_HOST_DEVICE_CALL Entry entry(int64_t c, double lambda) const {
    const double yc = y(c);
    const double v = regularizer_with_loss(
        regularizer, gamma, b(c),
        [yc, lambda](double curvature, double at) { return at + lambda * yc / curvature; });
    const bool held = (regularizer.l1 > 0 && v == 0) || v == regularizer.low || v == regularizer.high;
    return {v, held ? 0.0 : yc * yc / (gamma + regularizer.l2)};
  }

  // y'v(lambda) - 1 and its slope.
  TORCHBCD_HOST_DEVICE_CALL ValueAndSlope excess(double lambda) const {
    ValueAndSlope sum = {-1, 0};
    for (int64_t c = 0; c < classes; ++c) {
      const Entry at = entry(c, lambda);
      sum.value += y(c) * at.v;
      sum.slope += at.slope;
    }
    return sum;
  }

  TORCHBCD_HOST_DEVICE_CALL void solve() const {
    for (int64_t c = 0; c < classes; ++c) {
      if (!std::isfinite(b(c)) || !std::isfinite(y(c))) {
        for (int64_t k = 0; k < classes; ++k) {
          out[k * out_stride] = static_cast<T>(NAN);
        }
        return;
      }
    }
    const ValueAndSlope none = excess(0);
    double lambda = 0;
    double correction = 0;  // of the free entries, for what rounding leaves of y'v = 1 where |b| is large
    if (none.value < 0 && weight > 0) {
      const bool lines = regularizer.l1 > 0 || regularizer.low > -kInfinity || regularizer.high < kInfinity;
      const ValueAndSlope all = excess(weight);
      lambda = weight;
      if (all.value > 0) {
        const RowHingeRow row = *this;
        const auto at = [&row](double x) { return row.excess(x); };
        lambda = lines ? bracketed_root(at, 0, weight, 0, /*last_newton_step=*/4e-16)
                       : clip(-none.value / none.slope, 0.0, weight);
        const ValueAndSlope left = excess(lambda);
        correction = left.slope > 0 ? -left.value / left.slope : 0;
      }
    }
    for (int64_t c = 0; c < classes; ++c) {
      const Entry at = entry(c, lambda);
      const double moved = at.slope > 0 ? at.v + correction * y(c) / (gamma + regularizer.l2) : at.v;
      out[c * out_stride] = static_cast<T>(regularizer_clamp(regularizer, moved));
    }
  }

  // weight l(centre; target), for the objective.
  TORCHBCD_HOST_DEVICE double value() const {
    const double m = margin().left;
    return m < 0 ? 0 : weight * m;  // a NaN stays a NaN
  }

  // An element of the subdifferential of l at the centre, -share y: share is 1 inside the margin, 0 beyond it
  // and `end`, from 0 to 1, at it, up to centres that are rounded to `unit` of them.
  TORCHBCD_HOST_DEVICE void subgradient(double end, double unit) const {
    const Margin at = margin();
    const double distance = at.left < 0 ? -at.left : at.left;
    const double share = distance <= 4 * unit * (1 + at.size) ? end : (at.left > 0 ? 1.0 : 0.0);
    for (int64_t c = 0; c < classes; ++c) {
      out[c * out_stride] = static_cast<T>(-share * y(c));
    }
  }

 private:
  struct Margin {
    double left;  // 1 - y'v
    double size;  // sum_c |y_c v_c|
  };

  TORCHBCD_HOST_DEVICE Margin margin() const {
    Margin sum = {1, 0};
    for (int64_t c = 0; c < classes; ++c) {
      const double term = y(c) * b(c);
      sum.left -= term;
      sum.size += term < 0 ? -term : term;
    }
    return sum;
  }
};

struct RowHingeLoss : LossTraits {
  static constexpr const char* name = "row_hinge";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;
  static constexpr bool couples_row = true;
  static constexpr bool differentiable = false;
  static constexpr bool lipschitz_gradient = false;

  template <typename T>
  using Row = RowHingeRow<T>;
};

}  // namespace torchbcd::functors
