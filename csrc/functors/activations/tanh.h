// sigma(u) = tanh(u), a sigmoid from -1 to 1. Its prox is derived in functors/tanh_prox.h.
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/parameters.h"
#include "functors/scalar.h"
#include "functors/tanh_prox.h"

namespace torchbcd::functors {

struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = true;
  static constexpr bool piecewise_linear = false;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    using std::tanh;
    return tanh(u);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T t = value(u);
    return (T(1) - t) * (T(1) + t);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(
        tanh_prox(static_cast<double>(a), static_cast<double>(b), static_cast<double>(gamma)));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return inverse(t); }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return inverse(t); }

 private:
  TORCHBCD_HOST_DEVICE static double inverse(double t) {
    return t <= -1 ? -kInfinity : (t >= 1 ? kInfinity : 0.5 * std::log1p(2 * t / (1 - t)));
  }
};

}  // namespace torchbcd::functors
