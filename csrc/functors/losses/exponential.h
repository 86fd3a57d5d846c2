// l(v; y) = e^(-y v)
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct ExponentialLoss : LossTraits {
  static constexpr const char* name = "exponential";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;
  static constexpr bool lipschitz_gradient = false;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    return std::exp(-y * v);
  }

  // With w = y (v - b), stationarity is w e^w = y^2/gamma e^(-y b), that is w + log(w) = log(y^2/gamma) - y
  // b.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const double target = y;
    const double beta = target * b;
    const double kappa = target * target / gamma;
    if (!(std::isfinite(beta) && kappa > 0)) {
      return b + T(0) * y;
    }
    return static_cast<T>(b + wright_omega(std::log(kappa) - beta) / target);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    return -y * std::exp(-y * v);
  }
};

}  // namespace torchbcd::functors
