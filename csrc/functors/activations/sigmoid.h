// sigma(u) = 1 / (1 + e^-u).
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/parameters.h"
#include "functors/scalar.h"
#include "functors/tanh_prox.h"

namespace torchbcd::functors {

// 1 / (1 + e^-u) = (1 + tanh(u/2)) / 2, so with u = 2 w the prox is that of tanh:
// 1/4 [ 1/2 (tanh(w) - (2 a - 1))^2 + 16 gamma / 2 (w - b/2)^2 ].
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = true;
  static constexpr bool piecewise_linear = false;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    using std::exp;
    return T(1) / (T(1) + exp(-u));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T s = value(u);
    return s * (T(1) - s);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(2 * tanh_prox(2 * static_cast<double>(a) - 1, 0.5 * static_cast<double>(b),
                                        16 * static_cast<double>(gamma)));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return inverse(t); }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return inverse(t); }

 private:
  TORCHBCD_HOST_DEVICE static double inverse(double t) {
    return t <= 0 ? -kInfinity : (t >= 1 ? kInfinity : std::log(t / (1 - t)));
  }
};

}  // namespace torchbcd::functors
