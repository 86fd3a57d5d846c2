// sigma(u) = u for |u| > lambda, 0 between.
#pragma once

#include "functors/activations/three_pieces.h"

namespace torchbcd::functors {

struct Hardshrink : ThreePieces<Hardshrink> {
  static constexpr const char* name = "hardshrink";
  static constexpr bool continuous = false;
  static constexpr ParameterCount parameters = {
      .fewest = 1, .most = 1, .must = "activation 'hardshrink' takes one parameter, lambda"};

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T l = static_cast<T>(lambda);
    return u > l || u < -l ? u : (u != u ? u : T(0));  // a NaN stays a NaN
  }

  // u on the right, from the number next to lambda on.
  template <typename T>
  TORCHBCD_HOST_DEVICE T shift() const {
    return T(0);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T begin() const {
    return next_above(static_cast<T>(lambda));
  }
};

}  // namespace torchbcd::functors
