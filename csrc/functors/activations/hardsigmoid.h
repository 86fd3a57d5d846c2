// sigma(u) = u/6 + 1/2 between 0 and 1.
#pragma once

#include "functors/host_device.h"
#include "functors/line_prox.h"
#include "functors/parameters.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct HardSigmoid {
  static constexpr const char* name = "hardsigmoid";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = false;
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T line = u / T(6) + T(0.5);
    return line < T(0) ? T(0) : (line > T(1) ? T(1) : line);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? T(1) / T(6) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    return u <= T(-3) ? -1 : (u >= T(3) ? 1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T left_derivative(T u) const {
    return u > T(-3) && u <= T(3) ? T(1) / T(6) : T(0);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T right_derivative(T u) const {
    return u >= T(-3) && u < T(3) ? T(1) / T(6) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE bool on_one_piece(T u, T w) const {
    return piece(u) == piece(w);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T line = line_prox(a - T(0.5), b, gamma, T(1) / T(6));
    return clipped_prox(*this, a, b, gamma, line, T(-3), T(3));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= 0 ? -kInfinity : (t > 1 ? kInfinity : 6 * t - 3);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= 1 ? kInfinity : (t < 0 ? -kInfinity : 6 * t - 3);
  }
};

}  // namespace torchbcd::functors
