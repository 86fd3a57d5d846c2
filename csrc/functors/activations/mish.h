// sigma(u) = u tanh(log(1 + e^u)), which falls from 0 (at -inf) to -0.308... at -1.192... and rises from
// there.
//
// With w = e^u, tanh(log(1 + w)) = n/(n + 2) with n = w (w + 2). For u > 0 everything is divided by w^2, so
// that no power of it overflows: with e = 1/w,
//
//   u <= 0:  T = w (w + 2)/m,    T' = 4 w (1 + w)/m^2,     T'' = 4 w (2 + 2 w - 3 w^2 - 2 w^3)/m^3,    m =
//   w^2 + 2 w + 2 u > 0:   T = (1 + 2 e)/d,    T' = 4 e^2 (1 + e)/d^2,   T'' = -4 e^2 (2 + 3 e - 2 e^2 - 2
//   e^3)/d^3,   d = 1 + 2 e + 2 e^2.
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct Mish : SmoothActivation<Mish> {
  static constexpr const char* name = "mish";

  TORCHBCD_HOST_DEVICE bool monotone() const { return false; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u * factor(u).value;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const Jet<T> t = factor(u);
    return t.value + u * t.slope;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const Jet<C> t = factor(u);
    return {u * t.value, t.value + u * t.slope, 2 * t.slope + u * t.second};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  // The zeros of the derivatives, found in 60 digits.
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {-3.2673378465204046,   -2.2563763963607931, -1.1924312145154952,
                             -0.087934431314914211, 1.4905711794854285,  2.1148425630208771};
    return first_beyond(u, breaks, 6);
  }
  TORCHBCD_HOST_DEVICE double lowest() const { return -1.1924312145154952; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1.0885; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.6435, 0.0591, 0.5873}; }

 private:
  // tanh(log(1 + e^u)) and its derivatives.
  template <typename C>
  TORCHBCD_HOST_DEVICE static Jet<C> factor(C u) {
    const C e = exp_nonpositive(u < 0 ? u : -u);
    const bool left = u < 0;
    const C inverse = 1 / (left ? e * (e + 2) + 2 : 1 + 2 * e * (1 + e));
    const C square = inverse * inverse;
    const C power = left ? e : e * e;
    const C cubic = left ? 2 + e * (2 - e * (3 + 2 * e)) : -2 - e * (3 - 2 * e * (1 + e));
    return {(left ? e * (e + 2) : 1 + 2 * e) * inverse, 4 * power * (1 + e) * square,
            4 * power * cubic * (square * inverse)};
  }
};

}  // namespace torchbcd::functors
