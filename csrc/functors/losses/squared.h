// l(v; y) = 1/2 (v - y)^2
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct SquaredLoss : LossTraits {
  static constexpr const char* name = "squared";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T difference = v - y;
    return T(0.5) * difference * difference;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return weighted_mean(y, b, gamma);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    return v - y;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient_lipschitz(T) const {
    return T(1);
  }
};

}  // namespace torchbcd::functors
