// l(v; y) = max(0, 1 - y v)
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct HingeLoss : LossTraits {
  static constexpr const char* name = "hinge";
  static constexpr TargetEncoding encoding = TargetEncoding::kPlusMinusOne;
  static constexpr bool differentiable = false;
  static constexpr bool lipschitz_gradient = false;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T margin = T(1) - y * v;
    return margin < T(0) ? T(0) : margin;
  }

  // Zeng et al., Lemma 10. There y b <= 1 - y^2/gamma, with both sides times gamma.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    if (y == T(0) || y * b >= T(1) || b != b) {
      return b;
    }
    return gamma * (T(1) - y * b) >= y * y ? b + y / gamma : T(1) / y;
  }

  // -y below the margin, 0 above it, and all between at it, up to rounding.
  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> subdifferential(T v, T y) const {
    const T margin = T(1) - y * v;
    const T rounding = T(4) * std::numeric_limits<T>::epsilon() * (T(1) + (v < T(0) ? -v : v));
    if ((margin < T(0) ? -margin : margin) <= rounding) {
      return {-y < T(0) ? -y : T(0), -y > T(0) ? -y : T(0)};
    }
    const T slope = margin > T(0) ? -y : T(0);
    return {slope, slope};
  }
};

}  // namespace torchbcd::functors
