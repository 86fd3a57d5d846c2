// sigma(u) = log(1 + e^(beta u)) / beta, and u itself where beta u is beyond a threshold, as torch has it:
// there the graph jumps down by e^-threshold / beta or so. Hence the least threshold, torch's own, where that
// is two thousand-millionths.
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct Softplus : SmoothActivation<Softplus> {
  static constexpr const char* name = "softplus";
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {
      .fewest = 1,
      .most = 2,
      .must = "activation 'softplus' takes up to two parameters, beta and its threshold"};

  double beta = 1;
  double threshold = 20;

  const char* set(const double* values, int count) {
    beta = values[0];
    threshold = count > 1 ? values[1] : 20;
    return std::isfinite(beta) && beta > 0 && threshold >= 20
               ? nullptr
               : "beta must be finite and positive, and threshold at least 20: its graph jumps there";
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T z = static_cast<T>(beta) * u;
    const T beyond = log1p_unit(exp_nonpositive(z < 0 ? z : -z)) / static_cast<T>(beta);
    return z > static_cast<T>(threshold) ? u : (z > 0 ? u : T(0)) + beyond;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T z = static_cast<T>(beta) * u;
    return z > static_cast<T>(threshold) ? T(1) : Logistic<T>(z).value;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const C r = static_cast<C>(beta);
    const C z = r * u;
    const Logistic<C> s(z);
    const C value = (z > 0 ? u : C(0)) + log1p_unit(s.exponential) / r;
    const bool line = z > static_cast<C>(threshold);
    return {line ? u : value, line ? C(1) : s.value, line ? C(0) : r * (s.value * s.rest)};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {0, jump() * (1 - kAside), jump() * (1 + kAside)};
    return first_beyond(u, breaks, 3);
  }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.25 * beta, 0, 0.0963 * beta * beta}; }
  // sigma' = s, sigma'' = beta s (1 - s)
  TORCHBCD_HOST_DEVICE double dip(double most) const {
    const double z = beta * most;
    return 0.25 * z * z / (1 + z);
  }
  TORCHBCD_HOST_DEVICE double jump() const { return threshold / beta; }

  // y + log(1 - e^-y) = log(e^y - 1), y = beta t.
  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    const double y = beta * t;
    return t <= 0 ? -kInfinity : (y > threshold ? t : t + std::log(-std::expm1(-y)) / beta);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
