// The regularisers of weights (r_i) and of states (s_i), by the names that torchbcd.regularizers has.
#pragma once

#include <cmath>
#include <limits>

namespace torchbcd {

/// l1 |x| + l2/2 x^2 + indicator of [low, high], summed over entries; none by default.
struct Regularizer {
  double l1 = 0;
  double l2 = 0;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();

  bool operator==(const Regularizer&) const = default;

  bool bounded() const { return std::isfinite(low) || std::isfinite(high); }
  /// Whether it is a quadratic, so that least-squares blocks keep their closed form.
  bool quadratic() const { return l1 == 0 && !bounded(); }
  bool none() const { return quadratic() && l2 == 0; }
};

/// The sum of two; their bounds intersect, and low > high where they do not meet, which optimizers refuse.
inline Regularizer operator+(const Regularizer& a, const Regularizer& b) {
  return {a.l1 + b.l1, a.l2 + b.l2, std::fmax(a.low, b.low), std::fmin(a.high, b.high)};
}

namespace regularizers {

/// weight |x|_1
inline Regularizer L1(double weight) { return {.l1 = weight}; }
/// weight/2 |x|^2
inline Regularizer L2(double weight) { return {.l2 = weight}; }
/// l1 |x|_1 + l2/2 |x|^2
inline Regularizer ElasticNet(double l1, double l2) { return {.l1 = l1, .l2 = l2}; }
/// x >= 0
inline Regularizer Nonnegative() { return {.low = 0}; }
/// low <= x <= high
inline Regularizer Box(double low = 0, double high = 1) { return {.low = low, .high = high}; }

}  // namespace regularizers

}  // namespace torchbcd
