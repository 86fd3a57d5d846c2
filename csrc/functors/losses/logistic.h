// l(v; y) = log(1 + e^(-y v))
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/losses/targets.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct LogisticLoss {
  static constexpr const char* name = "logistic";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;
  static constexpr bool couples_row = false;
  static constexpr bool convex = true;
  static constexpr bool differentiable = true;
  static constexpr bool lipschitz_gradient = true;
  static constexpr bool probabilities = false;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    using std::exp;
    using std::fabs;
    using std::log1p;
    const T z = y * v;
    return (z < T(0) ? -z : T(0)) + log1p(exp(-fabs(z)));
  }

  // With z = y v, beta = y b and kappa = y^2/gamma, stationarity is z - beta = kappa / (1 + e^z): a function
  // that rises, less one that falls, with one root in [beta, beta + kappa].
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const double beta = static_cast<double>(y) * static_cast<double>(b);
    const double kappa = static_cast<double>(y) * static_cast<double>(y) / static_cast<double>(gamma);
    if (!(std::isfinite(beta) && kappa > 0)) {
      return b + T(0) * y;
    }
    const auto residual = [beta, kappa](double z) {
      const double e = std::exp(-std::fabs(z));
      const double s = (z > 0 ? e : 1) / (1 + e);  // 1 / (1 + e^z)
      return ValueAndSlope{z - beta - kappa * s, 1 + kappa * s * (1 - s)};
    };
    const double z = bracketed_root(residual, beta, beta + kappa, beta);
    return static_cast<T>(static_cast<double>(b) + (z - beta) / static_cast<double>(y));
  }

  // -y / (1 + e^(y v)) by the exponential that does not overflow.
  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    using std::exp;
    using std::fabs;
    const T z = y * v;
    const T e = exp(-fabs(z));
    return -y * ((z > T(0) ? e : T(1)) / (T(1) + e));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient_lipschitz(T y) const {
    return y * y / T(4);
  }
};

}  // namespace torchbcd::functors
