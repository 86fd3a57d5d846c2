// l(v; y) = log(1 + e^v) - y v, targets y from 0 to 1: torch.nn.BCEWithLogitsLoss.
//
// With s = 1 for y > 1/2 and -1 otherwise, the nearer label's sign, and d its distance from y, it is the
// logistic loss of that label and a line, log(1 + e^(-s v)) + d s v: all of it by differences that do not
// cancel.
#pragma once

#include "functors/elementary.h"
#include "functors/losses/logistic.h"
#include "functors/traits.h"
#include "functors/trial.h"

namespace torchbcd::functors {

struct BinaryCrossEntropyLoss : LossTraits {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr TargetEncoding encoding = TargetEncoding::kZeroOne;
  static constexpr TargetRange targets = {0, 1, "must hold numbers from 0 to 1 for this loss"};

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T s = sign_of(y);
    return LogisticLoss{}.value(v, s) + distance(y) * (s * v);
  }

  // The line moves the centre of the logistic loss's problem.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{y, b, gamma}));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    const Trial trial = LogisticLoss{}.first_trial<T>(of_label(p));
    return {polished(p, trial.u), trial.verdict};
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    const double u = LogisticLoss{}.solve(of_label(p));
    return std::isfinite(u) && std::isfinite(p.gamma) ? polished(p, u) : u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient(T v, T y) const {
    const T s = sign_of(y);
    return LogisticLoss{}.gradient(v, s) + distance(y) * s;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T gradient_lipschitz(T) const {
    return T(0.25);
  }

 private:
  template <typename C>
  TORCHBCD_HOST_DEVICE static C sign_of(C y) {
    return y > C(0.5) ? C(1) : C(-1);
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE static C distance(C y) {
    return y > C(0.5) ? 1 - y : y;
  }

  TORCHBCD_HOST_DEVICE static ProxProblem of_label(const ProxProblem& p) {
    const double s = sign_of(p.a);
    return {s, p.b - s * (distance(p.a) / p.gamma), p.gamma};
  }

  // A step of Newton's, since the centre has moved by d/gamma and has been rounded there: by z = s v, whose
  // derivative d - 1/(1 + e^z) + gamma (z - s b) has no large terms.
  TORCHBCD_HOST_DEVICE static double polished(const ProxProblem& p, double u) {
    const double s = sign_of(p.a);
    const double z = s * u;
    const Logistic<double> share(z);
    const double first = distance(p.a) - share.rest + p.gamma * (z - s * p.b);
    const double second = share.value * share.rest + p.gamma;
    return s * (z - first / second);
  }
};

}  // namespace torchbcd::functors
