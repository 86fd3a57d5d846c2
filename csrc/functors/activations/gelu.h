// sigma(u) = u Phi(u), Phi the distribution function of a standard normal variable, and its approximation by
// a tanh. Both fall from 0 (at -inf) to -0.1700... and rise from there.
#pragma once

#include "functors/normal.h"
#include "functors/smooth_prox.h"

namespace torchbcd::functors {

// sigma' = Phi + u phi, sigma'' = phi (2 - u^2), sigma''' = phi u (u^2 - 4).
struct GELU : SmoothActivation<GELU> {
  static constexpr const char* name = "gelu";

  TORCHBCD_HOST_DEVICE bool monotone() const { return false; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u * Normal<T>(u).below;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const Normal<T> normal(u);
    return normal.below + u * normal.density;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const Normal<C> normal(u);
    return {u * normal.below, normal.below + u * normal.density, normal.density * (2 - u * u)};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {-2, -1.4142135623730951, -0.75179152469356446, 0, 1.4142135623730951, 2};
    return first_beyond(u, breaks, 6);
  }
  TORCHBCD_HOST_DEVICE double lowest() const { return -0.75179152469356446; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1.1290; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.7980, 0.1080, 0.7764}; }
};

// sigma(u) = u s(q), s(q) = 1 / (1 + e^-q), q(u) = 2 sqrt(2/pi) (u + 0.044715 u^3). sigma - u/2 is even. The
// breaks are the zeros of the derivatives, found in 60 digits.
struct TanhGELU : SmoothActivation<TanhGELU> {
  static constexpr const char* name = "gelu_tanh";
  static constexpr double kRate = 1.5957691216057308;
  static constexpr double kCubic = 0.044715;

  TORCHBCD_HOST_DEVICE bool monotone() const { return false; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u * Logistic<T>(exponent(u)).value;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const Logistic<T> s(exponent(u));
    return s.value + u * (s.value * s.rest) * exponent_slope(u);
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const Logistic<C> s(exponent(u));
    const C p = s.value * s.rest;
    const C slope = exponent_slope(u);
    const C bend = C(6 * kRate * kCubic) * u;
    return {u * s.value, s.value + u * p * slope,
            p * (2 * slope + u * (bend - (s.value - s.rest) * (slope * slope)))};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {-2.0134807246242579, -1.4185040087908284, -0.75246142207101626, 0,
                             1.4185040087908284,  2.0134807246242579};
    return first_beyond(u, breaks, 6);
  }
  TORCHBCD_HOST_DEVICE double lowest() const { return -0.75246142207101626; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1.1290; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.7980, 0.1080, 0.7764}; }

 private:
  template <typename C>
  TORCHBCD_HOST_DEVICE static C exponent(C u) {
    return C(kRate) * (u + C(kCubic) * (u * u * u));
  }
  template <typename C>
  TORCHBCD_HOST_DEVICE static C exponent_slope(C u) {
    return C(kRate) * (1 + C(3 * kCubic) * (u * u));
  }
};

}  // namespace torchbcd::functors
