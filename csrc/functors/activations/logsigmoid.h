// sigma(u) = -log(1 + e^-u).
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct LogSigmoid : SmoothActivation<LogSigmoid> {
  static constexpr const char* name = "logsigmoid";
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return (u > 0 ? T(0) : u) - log1p_unit(exp_nonpositive(u < 0 ? u : -u));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return Logistic<T>(u).rest;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const Logistic<C> s(u);
    return {(u > 0 ? C(0) : u) - log1p_unit(s.exponential), s.rest, -(s.value * s.rest)};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const { return u < 0 ? 0 : kInfinity; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0, 0.25, 0.0963}; }
  // As of a softplus, whose mirror image it is.
  TORCHBCD_HOST_DEVICE double dip(double most) const { return 0.25 * most * most / (1 + most); }

  // -log(e^-t - 1) = t - log(1 - e^t)
  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t >= 0 ? kInfinity : t - std::log(-std::expm1(t));
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
