// l(v; y) = 1/2 (v - y)^2
#pragma once

#include "functors/host_device.h"
#include "functors/losses/targets.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct SquaredLoss {
  static constexpr const char* name = "squared";
  static constexpr TargetEncoding encoding = TargetEncoding::kOneHot;
  static constexpr bool couples_row = false;
  static constexpr bool convex = true;
  static constexpr bool differentiable = true;
  static constexpr bool lipschitz_gradient = true;
  static constexpr bool probabilities = false;

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
