// sigma(u) = u between two bounds, and the nearer bound beyond them.
#pragma once

#include <cmath>

#include "functors/host_device.h"
#include "functors/line_prox.h"
#include "functors/parameters.h"
#include "functors/scalar.h"

namespace torchbcd::functors {

struct HardTanh {
  static constexpr const char* name = "hardtanh";
  static constexpr bool continuous = true;
  static constexpr bool differentiable = false;
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {
      .fewest = 2, .most = 2, .must = "activation 'hardtanh' takes two parameters, its bounds"};

  double low = -1;
  double high = 1;

  const char* set(const double* values, int) {
    low = values[0];
    high = values[1];
    return std::isfinite(low) && std::isfinite(high) && low < high
               ? nullptr
               : "min_val must be below max_val, and both finite";
  }

  bool monotone() const { return true; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T l = static_cast<T>(low);
    const T h = static_cast<T>(high);
    return u < l ? l : (u > h ? h : u);  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? T(1) : T(0);
  }

  // Which of its three pieces u lies on.
  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    return u <= static_cast<T>(low) ? -1 : (u >= static_cast<T>(high) ? 1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T left_derivative(T u) const {
    return u > static_cast<T>(low) && u <= static_cast<T>(high) ? T(1) : T(0);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T right_derivative(T u) const {
    return u >= static_cast<T>(low) && u < static_cast<T>(high) ? T(1) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE bool on_one_piece(T u, T w) const {
    return piece(u) == piece(w);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return clipped_prox(*this, a, b, gamma, weighted_mean(a, b, gamma), static_cast<T>(low),
                        static_cast<T>(high));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= low ? -kInfinity : (t > high ? kInfinity : t);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= high ? kInfinity : (t < low ? -kInfinity : t);
  }
};

}  // namespace torchbcd::functors
