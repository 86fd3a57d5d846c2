// sigma(u) = u for u > threshold, and one number for all others.
#pragma once

#include "functors/activations/three_pieces.h"

namespace torchbcd::functors {

struct Threshold : ActivationTraits {
  static constexpr const char* name = "threshold";
  static constexpr bool continuous = false;
  static constexpr bool piecewise_linear = true;
  static constexpr ParameterCount parameters = {
      .fewest = 2,
      .most = 2,
      .must = "activation 'threshold' takes two parameters, the threshold and what replaces all up to it"};

  double threshold = 0;
  double replacement = 0;

  const char* set(const double* values, int) {
    threshold = values[0];
    replacement = values[1];
    return std::isfinite(threshold) && std::isfinite(replacement) ? nullptr
                                                                  : "threshold and value must be finite";
  }

  bool monotone() const { return replacement <= threshold; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u > static_cast<T>(threshold) ? u
                                         : (u != u ? u : static_cast<T>(replacement));  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > static_cast<T>(threshold) ? T(1) : T(0);
  }

  // The best of either piece.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T begin = next_above(static_cast<T>(threshold));
    const T line = weighted_mean(a, b, gamma);
    const T right = line < begin ? begin : line;
    const T left = b > static_cast<T>(threshold) ? static_cast<T>(threshold) : b;
    return better_of(Pair<T>{left, static_cast<T>(replacement)}, Pair<T>{right, right}, a, b, gamma).first;
  }
};

}  // namespace torchbcd::functors
