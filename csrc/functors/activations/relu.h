// sigma(u) = max(u, 0).
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct ReLU : ActivationTraits {
  static constexpr const char* name = "relu";
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;

  std::array<double, 1> kinks() const { return {0}; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(0) : u;  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > T(0) ? T(1) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    return {derivative(u), u >= T(0) ? T(1) : T(0)};
  }

  // Zeng et al., Lemma 9. For b < 0 the minimiser of the right branch, (a + gamma b) / (1 + gamma),
  // beats the left one, b, when gamma b >= -(sqrt(gamma (gamma + 1)) - gamma) a; multiplied by
  // sqrt(gamma (gamma + 1)) + gamma that is a + kappa b >= 0, free of cancellation.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T kappa = gamma + std::sqrt(gamma) * std::sqrt(gamma + T(1));
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
