// l(v; y) = e^(-y v)
#pragma once

#include "functors/elementary.h"
#include "functors/traits.h"
#include "functors/trial.h"
#include "functors/wright_omega.h"

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
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{y, b, gamma}));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    const double kappa = p.a * p.a / p.gamma;
    const double x = log_positive(kappa) - p.a * p.b;
    double w = wright_guess(x);
    TORCHBCD_UNROLL
    for (int k = 0; k < 2; ++k) {
      w = wright_step(w, x - w - log_positive(w));
    }
    const double known = x > -700 ? (x < 1e300 ? kSettled : kUnsettled) : kUnsettled;  // not for a NaN
    const double normal = kappa > 1e-300 ? (kappa < 1e300 ? known : kUnsettled) : kUnsettled;
    return {p.b + w / p.a, normal};
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    const double beta = p.a * p.b;
    const double kappa = p.a * p.a / p.gamma;
    if (!(std::isfinite(beta) && kappa > 0)) {
      return p.b + 0 * p.a;
    }
    return p.b + wright_omega(std::log(kappa) - beta) / p.a;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    return -y * std::exp(-y * v);
  }
};

}  // namespace torchbcd::functors
