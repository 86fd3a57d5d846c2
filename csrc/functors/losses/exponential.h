// l(v; y) = e^(-y v)
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/losses/targets.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct ExponentialLoss {
  static constexpr const char* name = "exponential";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;
  static constexpr bool couples_row = false;
  static constexpr bool convex = true;
  static constexpr bool differentiable = true;
  static constexpr bool lipschitz_gradient = false;
  static constexpr bool probabilities = false;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    using std::exp;
    return exp(-y * v);
  }

  // With w = y (v - b), stationarity is w e^w = y^2/gamma e^(-y b), that is w + log(w) = log(y^2/gamma) - y
  // b.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const double target = static_cast<double>(y);
    const double beta = target * static_cast<double>(b);
    const double kappa = target * target / static_cast<double>(gamma);
    if (!(std::isfinite(beta) && kappa > 0)) {
      return b + T(0) * y;
    }
    return static_cast<T>(static_cast<double>(b) + wright_omega(std::log(kappa) - beta) / target);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    using std::exp;
    return -y * exp(-y * v);
  }
};

}  // namespace torchbcd::functors
