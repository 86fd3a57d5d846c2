// sigma(u) = u - lambda for u > lambda, u + lambda for u < -lambda, 0 between.
#pragma once

#include "functors/activations/three_pieces.h"

namespace torchbcd::functors {

struct Softshrink : ThreePieces<Softshrink> {
  static constexpr const char* name = "softshrink";
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {
      .fewest = 1, .most = 1, .must = "activation 'softshrink' takes one parameter, lambda"};

  std::array<double, 2> kinks() const { return {-lambda, lambda}; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T l = static_cast<T>(lambda);
    return u > l ? u - l : (u < -l ? u + l : (u != u ? u : T(0)));  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    const T l = static_cast<T>(lambda);
    return {u > l || u <= -l ? T(1) : T(0), u >= l || u < -l ? T(1) : T(0)};
  }

  // u - shift on the right, and where that line begins.
  template <typename T>
  TORCHBCD_HOST_DEVICE T shift() const {
    return static_cast<T>(lambda);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T begin() const {
    return static_cast<T>(lambda);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t > 0 ? t + lambda : t - lambda; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t < 0 ? t - lambda : t + lambda; }
};

}  // namespace torchbcd::functors
