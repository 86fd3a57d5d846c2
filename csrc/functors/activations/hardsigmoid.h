// sigma(u) = u/6 + 1/2 between 0 and 1.
#pragma once

#include "functors/activations/clipped_line.h"

namespace torchbcd::functors {

struct HardSigmoid : ClippedLine<HardSigmoid> {
  static constexpr const char* name = "hardsigmoid";

  template <typename T>
  TORCHBCD_HOST_DEVICE Line<T> line() const {
    return {T(-3), T(3), T(1) / T(6)};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return clip(u / T(6) + T(0.5), T(0), T(1));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T line_minimiser(T a, T b, T gamma) const {
    return line_prox(a - T(0.5), b, gamma, T(1) / T(6));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= 0 ? -kInfinity : (t > 1 ? kInfinity : 6 * t - 3);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= 1 ? kInfinity : (t < 0 ? -kInfinity : 6 * t - 3);
  }
};

}  // namespace torchbcd::functors
