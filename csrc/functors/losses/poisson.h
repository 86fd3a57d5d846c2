// l(v; y) = e^v - y v, targets y >= 0: -log of Poisson's distribution of the count y with the mean e^v, but
// for log y!. torch.nn.PoissonNLLLoss as it is by default, log_input = True and full = False.
#pragma once

#include "functors/elementary.h"
#include "functors/traits.h"
#include "functors/trial.h"
#include "functors/wright_omega.h"

namespace torchbcd::functors {

struct PoissonLoss : LossTraits {
  static constexpr const char* name = "poisson";
  static constexpr TargetRange targets = {0, kInfinity, "must hold counts or rates >= 0 for this loss"};
  static constexpr bool lipschitz_gradient = false;
  static constexpr bool outputs_are_targets = false;  // but their logarithms

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    return std::exp(v) - y * v;
  }

  // Stationarity is e^v - y + gamma (v - b) = 0. With w = e^v/gamma and r = b + y/gamma it is w + log(w) = r
  // - log(gamma), where v is both r - w and log(gamma w): the one of them that is exact.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{y, b, gamma}));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    const double r = p.b + p.a / p.gamma;
    const double x = r - log_positive(p.gamma);
    double w = wright_guess(x);
    TORCHBCD_UNROLL
    for (int k = 0; k < 2; ++k) {
      w = wright_step(w, x - w - log_positive(w));
    }
    const double by_log = log_positive(p.gamma * w);
    const double known = x > -600 ? (x < 1e280 ? kSettled : kUnsettled) : kUnsettled;  // not for a NaN
    const double normal = p.gamma > 1e-20 ? (p.gamma < 1e20 ? known : kUnsettled) : kUnsettled;
    return {w > 1 ? by_log : r - w, normal};
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    const double r = p.b + p.a / p.gamma;
    if (!std::isfinite(r)) {
      return p.b + p.a / p.gamma;
    }
    const double w = wright_omega(r - std::log(p.gamma));
    return w > 1 ? std::log(p.gamma) + std::log(w) : r - w;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    return std::exp(v) - y;
  }
};

}  // namespace torchbcd::functors
