// sigma(u) = u - tanh(u).
#pragma once

#include "functors/activations/tanh.h"
#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct Tanhshrink : SmoothActivation<Tanhshrink> {
  static constexpr const char* name = "tanhshrink";
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u - Tanh{}.value(u);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T t = Tanh{}.value(u);
    return t * t;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    const C t = Tanh{}.value(u);
    return {u - t, t * t, 2 * t * ((1 - t) * (1 + t))};
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double) const { return jet(u); }
  // Its third derivative is 2 (1 - t^2)(1 - 3 t^2).
  TORCHBCD_HOST_DEVICE double next_break(double u) const {
    const double breaks[] = {-0.65847894846240835, 0, 0.65847894846240835};
    return first_beyond(u, breaks, 3);
  }
  TORCHBCD_HOST_DEVICE double steepest() const { return 1; }
  TORCHBCD_HOST_DEVICE Bends bends() const { return {0.7699, 0.7699, 2}; }

  // u - 1 <= sigma(u) <= u for u >= 0, and the mirror image.
  TORCHBCD_HOST_DEVICE_CALL double preimage_low(double t) const {
    if (!std::isfinite(t)) {
      return t;
    }
    const double size = std::fabs(t);
    const Tanhshrink f = *this;
    const double root = bracketed_root(
        [f, size](double u) {
          const Jet<double> at = f.jet(u);
          return ValueAndSlope{at.value - size, at.slope};
        },
        size, size + 1, size + 1, /*last_newton_step=*/4e-16);
    return t < 0 ? -root : root;
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
