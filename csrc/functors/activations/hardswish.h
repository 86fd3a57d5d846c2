// sigma(u) = u (u + 3)/6 between -3 and 3, 0 below and u above, which falls to -3/8 at -3/2.
#pragma once

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct HardSwish : SmoothActivation<HardSwish> {
  static constexpr const char* name = "hardswish";

  TORCHBCD_HOST_DEVICE bool monotone() const { return false; }

  std::array<double, 2> kinks() const { return {-3, 3}; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u * clip(u + 3, T(0), T(6)) / 6;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u <= -3 ? T(0) : (u >= 3 ? T(1) : u / 3 + T(0.5));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    return {u <= -3 ? T(0) : (u > 3 ? T(1) : u / 3 + T(0.5)),
            u < -3 ? T(0) : (u >= 3 ? T(1) : u / 3 + T(0.5))};
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    return {value(u), derivative(u), u <= -3 ? C(0) : (u >= 3 ? C(0) : C(1.0 / 3))};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double inside) const {
    return inside <= -3  ? Jet<double>{0, 0, 0}
           : inside >= 3 ? Jet<double>{u, 1, 0}
                         : Jet<double>{u * (u + 3) / 6, u / 3 + 0.5, 1.0 / 3};
  }
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {-3, -1.5, 3};
    return first_beyond(u, breaks, 3);
  }
  TORCHBCD_HOST_DEVICE double lowest() const { return -1.5; }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1.5; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.3334, 0, 0}; }
  // Away from the points that its slope jumps at, on any side of them.
  TORCHBCD_HOST_DEVICE double smooth_between(double low, double high) const {
    const double right = low > 3 ? 1.0 : 0.0;
    const double between = high < 3 ? (low > -3 ? 1.0 : 0.0) : right;
    return high < -3 ? 1.0 : between;
  }
};

}  // namespace torchbcd::functors
