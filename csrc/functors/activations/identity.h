// sigma(u) = u.
#pragma once

#include "functors/host_device.h"
#include "functors/parameters.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct Identity {
  static constexpr const char* name = "identity";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = true;
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T) const {
    return T(1);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE bool on_one_piece(T, T) const {
    return true;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return weighted_mean(a, b, gamma);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t; }
};

}  // namespace torchbcd::functors
