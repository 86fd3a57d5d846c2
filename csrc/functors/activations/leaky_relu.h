// sigma(u) = max(u, 0) + slope min(u, 0), for any slope: each branch has its own minimiser, and the lower one
// counts.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct LeakyReLU : ActivationTraits {
  static constexpr const char* name = "leaky_relu";
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {
      .fewest = 1, .most = 1, .must = "activation 'leaky_relu' takes one parameter, its negative slope"};

  double slope = 0.01;

  const char* set(const double* values, int) {
    slope = values[0];
    return std::isfinite(slope) ? nullptr : "negative_slope must be finite";
  }

  bool monotone() const { return slope > 0; }  // at 0 its preimages are not those below

  std::array<double, 1> kinks() const { return {0}; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? static_cast<T>(slope) * u : u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > T(0) ? T(1) : static_cast<T>(slope);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    return {derivative(u), u >= T(0) ? T(1) : static_cast<T>(slope)};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T s = static_cast<T>(slope);
    const T on_right = weighted_mean(a, b, gamma);
    const T on_left = line_prox(a, b, gamma, s);
    const T right = on_right < T(0) ? T(0) : on_right;
    const T left = on_left > T(0) ? T(0) : on_left;
    // Half the difference of the two objectives, as products of differences and sums: squares of large
    // numbers that nearly agree would cancel.
    const T difference = (right - s * left) * ((right - a) + (s * left - a)) +
                         gamma * (right - left) * ((right - b) + (left - b));
    return difference <= T(0) ? right : left;
  }

  // For slope > 0, where it is monotone.
  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t < 0 ? t / slope : t; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t < 0 ? t / slope : t; }
};

}  // namespace torchbcd::functors
