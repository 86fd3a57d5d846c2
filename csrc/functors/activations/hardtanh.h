// sigma(u) = u between two bounds, and the nearer bound beyond them.
#pragma once

#include "functors/activations/clipped_line.h"

namespace torchbcd::functors {

struct HardTanh : ClippedLine<HardTanh> {
  static constexpr const char* name = "hardtanh";
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

  template <typename T>
  TORCHBCD_HOST_DEVICE Line<T> line() const {
    return {static_cast<T>(low), static_cast<T>(high), T(1)};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return clip(u, static_cast<T>(low), static_cast<T>(high));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T line_minimiser(T a, T b, T gamma) const {
    return weighted_mean(a, b, gamma);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= low ? -kInfinity : (t > high ? kInfinity : t);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= high ? kInfinity : (t < low ? -kInfinity : t);
  }
};

}  // namespace torchbcd::functors
