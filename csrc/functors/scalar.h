// Scalar building blocks: weighted means, and roots of functions, found by Newton's method inside a bracket
// that bisection keeps shrinking.
#pragma once

#include <cmath>
#include <limits>

#include "functors/host_device.h"

namespace torchbcd::functors {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Two results of one formula: what a pass writes into its first and its second output.
template <typename T>
struct Pair {
  T first;
  T second;
};

// x, or the nearer of two bounds where it is beyond them; a NaN stays a NaN.
template <typename T>
TORCHBCD_HOST_DEVICE T clip(T x, T low, T high) {
  return x < low ? low : (x > high ? high : x);
}

// (a + gamma b) / (1 + gamma), by the form whose rounding error is that of the result: exact where a == b,
// close to a where gamma is small and to b where it is large.
template <typename T>
TORCHBCD_HOST_DEVICE T weighted_mean(T a, T b, T gamma) {
  return gamma < T(1) ? a + (b - a) * (gamma / (T(1) + gamma)) : b + (a - b) / (T(1) + gamma);
}

// argmin over u of 1/2 (slope u - a)^2 + gamma/2 (u - b)^2: the mean of a/slope and b with weights slope^2
// and gamma, in the form of the two that rounds less.
template <typename T>
TORCHBCD_HOST_DEVICE T line_prox(T a, T b, T gamma, T slope) {
  const T square = slope * slope;
  return gamma < square ? a / slope + (b - a / slope) * (gamma / (square + gamma))
                        : b + slope * (a - slope * b) / (square + gamma);
}

struct ValueAndSlope {
  double value;
  double slope;
};

// The root of f in [low, high], where f(low) <= 0 <= f(high) and f changes sign once. Newton steps are taken
// while they stay inside the bracket and shrink fast enough, bisection otherwise, so that the bracket halves
// at least every other step. Stops after a Newton step of 1e-12 of the root, whose error is about the square
// of that; at a change of a few units in the last place; or after kSteps, when a bracket as wide as the range
// of float64 has long shrunk to that.
template <typename Function>
TORCHBCD_HOST_DEVICE_CALL double bracketed_root(const Function& f, double low, double high, double start,
                                                double last_newton_step = 1e-12) {
  constexpr int kSteps = 200;
  double x = start < low ? low : (start > high ? high : start);
  double last_step = high - low;
  for (int step = 0; step < kSteps; ++step) {
    const ValueAndSlope at = f(x);
    if (at.value == 0) {
      return x;
    }
    (at.value < 0 ? low : high) = x;
    double next = x - at.value / at.slope;
    if (next == x) {  // Newton's step is rounding
      return x;
    }
    // Written so that a NaN or infinite Newton step fails the test.
    const bool newton = next > low && next < high && 2 * std::fabs(next - x) < last_step;
    if (!newton) {
      next = low + 0.5 * (high - low);
    }
    const double moved = std::fabs(next - x);
    if (moved <= (newton ? last_newton_step : 4e-16) * std::fabs(next) || next == low || next == high) {
      return next;
    }
    last_step = newton ? moved : 0.5 * (high - low);
    x = next;
  }
  return x;
}

}  // namespace torchbcd::functors
