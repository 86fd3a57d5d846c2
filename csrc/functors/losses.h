// Losses l(v; y) and their prox,
//
//     prox(y, b, gamma) = argmin over v of  l(v; y) + gamma/2 (v - b)^2,    gamma > 0.
#pragma once

#include <cmath>
#include <variant>

#include "functors/host_device.h"

namespace torchbcd::functors {

// l(v; y) = 1/2 (v - y)^2
struct SquaredLoss {
  static constexpr const char* name = "squared";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T difference = v - y;
    return T(0.5) * difference * difference;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return b + (y - b) / (T(1) + gamma);
  }
};

// The registry of losses: a new one is a struct above, a name here and a row in the tests.
using Loss = std::variant<SquaredLoss>;

}  // namespace torchbcd::functors
