// Formulas over a Regularizer r(x) = l1 |x| + l2/2 x^2 + indicator of [low, high], entry by entry. Every
// regulariser that Zeng et al. name is of this form: the squared norm, the 1-norm, their sum (elastic net),
// the half space x >= 0 and intervals.
#pragma once

#include "functors/scalar.h"
#include "torchbcd/regularizers.h"

namespace torchbcd::functors {

template <typename T>
TORCHBCD_HOST_DEVICE T regularizer_clamp(const Regularizer& r, T x) {
  const T lower = static_cast<T>(r.low);
  const T upper = static_cast<T>(r.high);
  const T raised = x < lower ? lower : x;
  return raised > upper ? upper : raised;
}

// l1 |x| + l2/2 x^2: all of r but its bounds.
template <typename T>
TORCHBCD_HOST_DEVICE T regularizer_penalty(const Regularizer& r, T x) {
  const T magnitude = x < T(0) ? -x : x;
  return static_cast<T>(r.l1) * magnitude + static_cast<T>(0.5 * r.l2) * x * x;
}

// The ends of the subdifferential. An entry lies on a bound where the float32 next to it does, whatever T is:
// models in float32 are looked at in float64.
template <typename T>
TORCHBCD_HOST_DEVICE Pair<T> regularizer_subdifferential(const Regularizer& r, T x) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const T smooth = static_cast<T>(r.l2) * x;
  const T kink = static_cast<T>(r.l1);
  const float single = static_cast<float>(x);
  const bool at_low =
      r.low != -std::numeric_limits<double>::infinity() && single <= static_cast<float>(r.low);
  const bool at_high =
      r.high != std::numeric_limits<double>::infinity() && single >= static_cast<float>(r.high);
  return {at_low ? -infinity : smooth + (x > T(0) ? kink : -kink),
          at_high ? infinity : smooth + (x < T(0) ? -kink : kink)};
}

// argmin over u of t r(u) + 1/2 (u - x)^2. The bounds come last: in one dimension the constrained minimiser
// of a convex function is the projection of the free one.
template <typename T>
TORCHBCD_HOST_DEVICE T regularizer_prox(const Regularizer& r, T x, T t) {
  const T threshold = t * static_cast<T>(r.l1);
  const T lowered = x > threshold ? x - threshold : (x < -threshold ? x + threshold : (x != x ? x : T(0)));
  return regularizer_clamp(r, lowered / (T(1) + t * static_cast<T>(r.l2)));
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
