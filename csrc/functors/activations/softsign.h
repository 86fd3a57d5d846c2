// sigma(u) = u / (1 + |u|).
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct Softsign : SmoothActivation<Softsign> {
  static constexpr const char* name = "softsign";
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u / (1 + (u < 0 ? -u : u));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T inverse = 1 / (1 + (u < 0 ? -u : u));
    return inverse * inverse;
  }

  // Its second derivative, -+ 2 / (1 + |u|)^3, jumps at zero.
  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u, bool right) const {
    const C inverse = 1 / (1 + (u < 0 ? -u : u));
    const C slope = inverse * inverse;
    return {u * inverse, slope, (right ? C(-2) : C(2)) * (slope * inverse)};
  }
  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    return jet(u, u > 0);
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double inside) const { return jet(u, inside > 0); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const { return u < 0 ? 0 : kInfinity; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {2, 2, 6}; }
  // |sigma''| = 2 s^3 and sigma' = s^2 with 0 < s <= 1.
  TORCHBCD_HOST_DEVICE double dip(double most) const {
    const double square = most * most;
    return 3 * most < 2 ? 1.6875 * square * square : 2 * most - 1;
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= -1 ? -kInfinity : (t >= 1 ? kInfinity : t / (1 - std::fabs(t)));
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
