// sigma(u) = sin(u).
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct Sine : SmoothActivation<Sine> {
  static constexpr const char* name = "sine";

  TORCHBCD_HOST_DEVICE bool monotone() const { return false; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return std::sin(u);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return std::cos(u);
  }

  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const {
    const double value = std::sin(u);
    return {value, std::cos(u), -value};
  }
  // The multiples of pi/2; beyond u also where they are so large that numbers next to them are no quarter
  // apart.
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    constexpr double kQuarter = 1.5707963267948966;
    const double count = std::floor(u / kQuarter);
    const double next = (count + 1) * kQuarter;
    return next > u ? next : (count + 2) * kQuarter;
  }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1; }
  TORCHBCD_HOST_DEVICE double period() const { return 6.283185307179587; }
};

}  // namespace torchbcd::functors
