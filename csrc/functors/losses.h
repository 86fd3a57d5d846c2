// Losses l(v; y), entry by entry, and their prox,
//
//     prox(y, b, gamma) = argmin over v of  l(v; y) + gamma/2 (v - b)^2,    gamma > 0.
//
// All are convex. Cross-entropy, which couples the entries of a row, is in cross_entropy.h.
#pragma once

#include <cmath>
#include <type_traits>
#include <variant>

#include "functors/cross_entropy.h"
#include "functors/host_device.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

// l(v; y) = 1/2 (v - y)^2
struct SquaredLoss {
  static constexpr const char* name = "squared";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T difference = v - y;
    return T(0.5) * difference * difference;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return weighted_mean(y, b, gamma);
  }
};

// l(v; y) = max(0, 1 - y v)
struct HingeLoss {
  static constexpr const char* name = "hinge";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T margin = T(1) - y * v;
    return margin < T(0) ? T(0) : margin;
  }

  // Zeng et al., Lemma 10. There y b <= 1 - y^2/gamma, with both sides times gamma.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    if (y == T(0) || y * b >= T(1) || b != b) {
      return b;
    }
    return gamma * (T(1) - y * b) >= y * y ? b + y / gamma : T(1) / y;
  }
};

// l(v; y) = log(1 + e^(-y v))
struct LogisticLoss {
  static constexpr const char* name = "logistic";

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
};

// l(v; y) = e^(-y v)
struct ExponentialLoss {
  static constexpr const char* name = "exponential";

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
};

// The registry of losses: a new one is a struct like these, a name here and a row in the tests.
using Loss = std::variant<SquaredLoss, HingeLoss, LogisticLoss, ExponentialLoss, CrossEntropyLoss>;

// Whether a loss has no value for a single entry, only for a whole row.
template <typename LossFunctor>
inline constexpr bool is_row_loss = std::is_same_v<LossFunctor, CrossEntropyLoss>;

}  // namespace torchbcd::functors
