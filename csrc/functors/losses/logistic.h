// l(v; y) = log(1 + e^(-y v))
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct LogisticLoss : LossTraits {
  static constexpr const char* name = "logistic";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T z = y * v;
    return (z < T(0) ? -z : T(0)) + std::log1p(std::exp(-std::fabs(z)));
  }

  // With z = y v, beta = y b and kappa = y^2/gamma, stationarity is z - beta = kappa / (1 + e^z): a function
  // that rises, less one that falls, with one root in [beta, beta + kappa].
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const double target = y;
    const double beta = target * b;
    const double kappa = target * target / gamma;
    if (!(std::isfinite(beta) && kappa > 0)) {
      return b + T(0) * y;
    }
    const auto residual = [beta, kappa](double z) {
      const double e = std::exp(-std::fabs(z));
      const double s = (z > 0 ? e : 1) / (1 + e);  // 1 / (1 + e^z)
      return ValueAndSlope{z - beta - kappa * s, 1 + kappa * s * (1 - s)};
    };
    const double z = bracketed_root(residual, beta, beta + kappa, beta);
    return static_cast<T>(b + (z - beta) / target);
  }

  // -y / (1 + e^(y v)) by the exponential that does not overflow.
  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    const T z = y * v;
    const T e = std::exp(-std::fabs(z));
    return -y * ((z > T(0) ? e : T(1)) / (T(1) + e));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient_lipschitz(T y) const {
    return y * y / T(4);
  }
};

}  // namespace torchbcd::functors
