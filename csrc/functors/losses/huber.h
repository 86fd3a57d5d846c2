// l(v; y) = 1/2 (v - y)^2 where |v - y| <= 1, and |v - y| - 1/2 beyond: delta = 1, the default of
// torch.nn.HuberLoss.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct HuberLoss : LossTraits {
  static constexpr const char* name = "huber";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T difference = v - y;
    const T size = difference < T(0) ? -difference : difference;
    return size > T(1) ? size - T(0.5) : T(0.5) * size * size;
  }

  // The squared loss's minimiser m while |m - y| = |b - y| gamma/(1 + gamma) <= 1; beyond that the gradient
  // is 1 or -1. A NaN stays a NaN, by m.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const T difference = b - y;
    const T limit = T(1) + T(1) / gamma;
    const T inner = weighted_mean(y, b, gamma);
    const T above = difference > limit ? b - T(1) / gamma : inner;
    return difference < -limit ? b + T(1) / gamma : above;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    const T difference = v - y;
    return difference > T(1) ? T(1) : (difference < T(-1) ? T(-1) : difference);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient_lipschitz(T) const {
    return T(1);
  }
};

}  // namespace torchbcd::functors
