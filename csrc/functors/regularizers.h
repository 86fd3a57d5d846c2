// Formulas over a Regularizer r(x) = l1 |x| + l2/2 x^2 + indicator of [low, high], entry by entry. Every
// regulariser that Zeng et al. name is of this form: the squared norm, the 1-norm, their sum (elastic net),
// the half space x >= 0 and intervals.
#pragma once

#include "functors/scalar.h"
#include "torchbcd/regularizers.h"

namespace torchbcd::functors {

template <typename T>
TORCHBCD_HOST_DEVICE T regularizer_clamp(const Regularizer& r, T x) {
  return clip(x, static_cast<T>(r.low), static_cast<T>(r.high));
}

// argmin over v of  smooth(v) + gamma/2 (v - b)^2 + r(v), where `minimise(gamma, b)` returns the argmin
// of smooth(v) + gamma/2 (v - b)^2 for a convex function `smooth`. The 1-norm shifts the centre, by its
// sign on either side of zero.
template <typename T, typename Minimise>
TORCHBCD_HOST_DEVICE T regularizer_with_loss(const Regularizer& r, T gamma, T b, const Minimise& minimise) {
  const T curvature = gamma + static_cast<T>(r.l2);
  const T centre = r.l2 == 0 ? b : (gamma / curvature) * b;
  if (r.l1 == 0) {
    return regularizer_clamp(r, minimise(curvature, centre));
  }
  const T shift = static_cast<T>(r.l1) / curvature;
  const T positive = minimise(curvature, centre - shift);
  if (positive > T(0)) {
    return regularizer_clamp(r, positive);
  }
  const T negative = minimise(curvature, centre + shift);
  return regularizer_clamp(r, negative < T(0) ? negative : (negative != negative ? negative : T(0)));
}

}  // namespace torchbcd::functors
