// sigma(u) = max(u, 0).
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/parameters.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct ReLU {
  static constexpr const char* name = "relu";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = false;
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(0) : u;  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > T(0) ? T(1) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T left_derivative(T u) const {
    return u > T(0) ? T(1) : T(0);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T right_derivative(T u) const {
    return u >= T(0) ? T(1) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE bool on_one_piece(T u, T w) const {
    return derivative(u) == derivative(w);
  }

  // Zeng et al., Lemma 9. For b < 0 the minimiser of the right branch, (a + gamma b) / (1 + gamma),
  // beats the left one, b, when gamma b >= -(sqrt(gamma (gamma + 1)) - gamma) a; multiplied by
  // sqrt(gamma (gamma + 1)) + gamma that is a + kappa b >= 0, free of cancellation.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    using std::sqrt;
    const T kappa = gamma + sqrt(gamma) * sqrt(gamma + T(1));
    const T right = weighted_mean(a, b, gamma);
    // Selections rather than branches: the loops over this vectorise.
    const T positive = right < T(0) ? T(0) : right;
    const T negative = a + kappa * b >= T(0) ? right : b;
    return b < T(0) ? negative : positive;
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t > 0 ? t : -kInfinity; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t < 0 ? -kInfinity : t; }
};

}  // namespace torchbcd::functors
