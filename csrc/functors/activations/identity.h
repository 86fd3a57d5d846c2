// sigma(u) = u.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct Identity : ActivationTraits {
  static constexpr const char* name = "identity";
  static constexpr bool identity = true;
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T) const {
    return T(1);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return weighted_mean(a, b, gamma);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t; }
};

}  // namespace torchbcd::functors
