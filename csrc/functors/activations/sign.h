// sigma(u) = -1 below zero and 1 from zero on. Nothing attains "just below zero"; the largest negative normal
// number stands for it.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct Sign : ActivationTraits {
  static constexpr const char* name = "sign";
  static constexpr bool continuous = false;
  static constexpr bool discrete = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(-1) : (u >= T(0) ? T(1) : u);  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T) const {
    return T(0);
  }

  // It jumps at zero, and attains the upper value there.
  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    return {u == T(0) ? std::numeric_limits<T>::infinity() : T(0), T(0)};
  }

  // b itself, or the nearest point on the other side: half the difference of the squares is 2 sign(b) a.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T across = b < T(0) ? T(0) : -std::numeric_limits<T>::min();
    const T more = T(2) * value(b) * a + T(0.5) * gamma * b * b;
    return more < T(0) ? across : (more >= T(0) ? b : more);  // a NaN stays a NaN
  }
};

}  // namespace torchbcd::functors
