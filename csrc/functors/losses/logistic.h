// l(v; y) = log(1 + e^(-y v))
#pragma once

#include "functors/elementary.h"
#include "functors/traits.h"
#include "functors/trial.h"

namespace torchbcd::functors {

struct LogisticLoss : LossTraits {
  static constexpr const char* name = "logistic";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T z = y * v;
    return (z < T(0) ? -z : T(0)) + std::log1p(std::exp(-std::fabs(z)));
  }

  // With z = y v, beta = y b and kappa = y^2/gamma, stationarity is d = kappa / (1 + e^(beta + d)), d = z -
  // beta: a function that rises, less one that falls, with one root in [0, kappa].
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{y, b, gamma}));
  }

  // Halley's iteration in that bracket. The slope of d - kappa s is at least one, so that a small step is as
  // near.
  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    constexpr int kSteps = 4;
    const double beta = p.a * p.b;
    const double kappa = p.a * p.a / p.gamma;
    const Stationarity<double> fine = {beta, kappa};
    const Stationarity<T> rough = {static_cast<T>(beta), static_cast<T>(kappa)};
    // A Newton step from d = 0; or, where that is steep, d = kappa s solved for z with that d on its left.
    const double s = share_below(beta);
    const double steep = kappa * s * (1 - s);
    const double tangent = kappa * s / (1 + steep);
    const double ratio = kappa / tangent;
    const double inverse = log_positive(ratio > 1.001 ? ratio - 1 : 0.001) - beta;
    const double guess = steep > 1 ? inverse : tangent;
    const double above = guess > 0 ? guess : 0.0;
    Bracketed<T> search = {static_cast<T>(above < kappa ? above : kappa), T(0), static_cast<T>(kappa)};
    TORCHBCD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const auto f = rough.at(search.u);
      search = search.moved(f.value, f.step, /*trusted=*/1);
    }
    const T d = search.u;
    const auto f = fine.at(d);
    const double size = d < 1 ? static_cast<double>(d) : 1.0;
    const double verdict = std::fabs(f.step) <= 1e-5 * size ? kSettled : kUnsettled;
    return {p.b + (d + f.step) / p.a, kappa > 0 ? verdict : kUnsettled};
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    const double beta = p.a * p.b;
    const double kappa = p.a * p.a / p.gamma;
    if (!(std::isfinite(beta) && kappa > 0)) {
      return p.b + 0 * p.a;
    }
    const auto residual = [beta, kappa](double z) {
      const double e = std::exp(-std::fabs(z));
      const double s = (z > 0 ? e : 1) / (1 + e);  // 1 / (1 + e^z)
      return ValueAndSlope{z - beta - kappa * s, 1 + kappa * s * (1 - s)};
    };
    const double z = bracketed_root(residual, beta, beta + kappa, beta);
    return p.b + (z - beta) / p.a;
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

 private:
  // 1 / (1 + e^z)
  template <typename C>
  TORCHBCD_HOST_DEVICE static C share_below(C z) {
    const C e = exp_nonpositive(-std::fabs(z));
    return (z > 0 ? e : C(1)) / (1 + e);
  }

  template <typename C>
  struct Stationarity {
    C beta, kappa;

    struct Value {
      C value;
      C step;  // Halley's
    };

    TORCHBCD_HOST_DEVICE Value at(C d) const {
      const C s = share_below(beta + d);
      const C value = d - kappa * s;
      const C falling = kappa * s * (1 - s);
      const C slope = 1 + falling;
      const C bend = falling * (2 * s - 1);
      return {value, HalleyStep<C>(value, slope, bend).length};
    }
  };
};

}  // namespace torchbcd::functors
