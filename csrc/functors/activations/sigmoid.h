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
    const T e = exp_nonpositive(-std::fabs(u));
    return (u < 0 ? e : T(1)) / (1 + e);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T s = value(u);
    return s * (T(1) - s);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{a, b, gamma}));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    const Trial trial = Tanh{}.first_trial<T>(of_tanh(p));
    return {2 * trial.u, trial.verdict};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial second_trial(const ProxProblem& p, const Trial& first) const {
    const Trial trial = Tanh{}.second_trial<T>(of_tanh(p), {0.5 * first.u, first.verdict});
    return {2 * trial.u, trial.verdict};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial last_trial(const ProxProblem& p) const {
    const Trial trial = Tanh{}.last_trial<T>(of_tanh(p));
    return {2 * trial.u, trial.verdict};
  }

  TORCHBCD_HOST_DEVICE double solve(const ProxProblem& p) const { return 2 * Tanh{}.solve(of_tanh(p)); }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= 0 ? -kInfinity : (t >= 1 ? kInfinity : std::log(t / (1 - t)));
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }

 private:
  TORCHBCD_HOST_DEVICE static ProxProblem of_tanh(const ProxProblem& p) {
    return {2 * p.a - 1, 0.5 * p.b, 16 * p.gamma};
  }
};

}  // namespace torchbcd::functors
