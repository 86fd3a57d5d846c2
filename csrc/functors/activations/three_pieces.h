// What the shrinking activations have in common: zero on [-lambda, lambda], and lines of slope one beyond.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

// The number next to x on the right; next to zero the least normal one.
template <typename T>
TORCHBCD_HOST_DEVICE T next_above(T x) {
  constexpr T least = std::numeric_limits<T>::min();
  const T step = T(0.75) * std::numeric_limits<T>::epsilon() * (x < T(0) ? -x : x);
  return x + (step > least ? step : least);
}

// The better of two points, with values of sigma; the second where that is not clear: a NaN stays a NaN. Half
// the difference of the objectives is written in products, as for a leaky ReLU.
template <typename T>
TORCHBCD_HOST_DEVICE Pair<T> better_of(const Pair<T>& p, const Pair<T>& q, T a, T b, T gamma) {
  const T difference = (q.second - p.second) * ((q.second - a) + (p.second - a)) +
                       gamma * (q.first - p.first) * ((q.first - b) + (p.first - b));
  return {difference > T(0) ? p.first : q.first, difference > T(0) ? p.second : q.second};
}

// Self also has value(u), and begin() and shift(): u - shift from `begin` on, and its mirror image.
template <typename Self>
struct ThreePieces : ActivationTraits {
  static constexpr bool piecewise_linear = true;

  double lambda = 0.5;

  const char* set(const double* values, int) {
    lambda = values[0];
    return std::isfinite(lambda) && lambda > 0
               ? nullptr
               : "lambda must be finite and positive (0 makes it the identity)";
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    const T l = static_cast<T>(lambda);
    return u > l ? 1 : (u < -l ? -1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? T(0) : T(1);
  }

  // Each piece has its own minimiser, cut off at its ends, and the best of them counts.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T l = static_cast<T>(lambda);
    const T begin = self().template begin<T>();
    const T shift = self().template shift<T>();
    const T on_right = weighted_mean(a + shift, b, gamma);
    const T on_left = weighted_mean(a - shift, b, gamma);
    const T right = on_right < begin ? begin : on_right;
    const T left = on_left > -begin ? -begin : on_left;
    const Pair<T> flat = {clip(b, -l, l), T(0)};
    const Pair<T> best = better_of(flat, Pair<T>{left, left + shift}, a, b, gamma);
    return better_of(best, Pair<T>{right, right - shift}, a, b, gamma).first;
  }

 private:
  TORCHBCD_HOST_DEVICE const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace torchbcd::functors
