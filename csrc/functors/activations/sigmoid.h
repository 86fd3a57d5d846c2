// sigma(u) = 1 / (1 + e^-u).
#pragma once

#include "functors/activations/tanh.h"

namespace torchbcd::functors {

// 1 / (1 + e^-u) = (1 + tanh(u/2)) / 2, so with u = 2 w the prox is that of tanh:
// 1/4 [ 1/2 (tanh(w) - (2 a - 1))^2 + 16 gamma / 2 (w - b/2)^2 ].
struct Sigmoid : ActivationTraits {
  static constexpr const char* name = "sigmoid";
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return T(1) / (T(1) + std::exp(-u));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T s = value(u);
    return s * (T(1) - s);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(2 * tanh_prox(2.0 * a - 1, 0.5 * b, 16.0 * gamma));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= 0 ? -kInfinity : (t >= 1 ? kInfinity : std::log(t / (1 - t)));
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
