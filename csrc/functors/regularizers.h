// Regularisers r(x) = l1 |x| + l2/2 x^2 + indicator of [low, high], entry by entry. Every one that Zeng et
// al. name is of this form: the squared norm, the 1-norm, their sum (elastic net), the half space x >= 0
// and intervals.
#pragma once

#include <cmath>
#include <limits>

#include "functors/host_device.h"

namespace torchbcd::functors {

struct Regularizer {
  double l1 = 0;
  double l2 = 0;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();

  bool operator==(const Regularizer&) const = default;

  bool bounded() const { return std::isfinite(low) || std::isfinite(high); }
  // Whether it is a quadratic, so that least-squares blocks keep their closed form.
  bool quadratic() const { return l1 == 0 && !bounded(); }
  bool none() const { return quadratic() && l2 == 0; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T clamp(T x) const {
    const T lower = static_cast<T>(low);
    const T upper = static_cast<T>(high);
    const T raised = x < lower ? lower : x;
    return raised > upper ? upper : raised;
  }

  // argmin over u of t r(u) + 1/2 (u - x)^2. The bounds come last: in one dimension the constrained minimiser
  // of a convex function is the projection of the free one.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T x, T t) const {
    const T threshold = t * static_cast<T>(l1);
    const T lowered = x > threshold ? x - threshold : (x < -threshold ? x + threshold : (x != x ? x : T(0)));
    return clamp(lowered / (T(1) + t * static_cast<T>(l2)));
  }

  // argmin over v of  smooth(v) + gamma/2 (v - b)^2 + r(v), where `minimise(gamma, b)` returns the argmin
  // of smooth(v) + gamma/2 (v - b)^2 for a convex function `smooth`. The 1-norm shifts the centre, by its
  // sign on either side of zero.
  template <typename T, typename Minimise>
  TORCHBCD_HOST_DEVICE T with_loss(T gamma, T b, const Minimise& minimise) const {
    const T curvature = gamma + static_cast<T>(l2);
    const T centre = l2 == 0 ? b : (gamma / curvature) * b;
    if (l1 == 0) {
      return clamp(minimise(curvature, centre));
    }
    const T shift = static_cast<T>(l1) / curvature;
    const T positive = minimise(curvature, centre - shift);
    if (positive > T(0)) {
      return clamp(positive);
    }
    const T negative = minimise(curvature, centre + shift);
    return clamp(negative < T(0) ? negative : (negative != negative ? negative : T(0)));
  }
};

}  // namespace torchbcd::functors
