// sigma(u) = -1 below zero and 1 from zero on. Nothing attains "just below zero"; the largest negative normal
// number stands for it.
#pragma once

#include <limits>
#include <type_traits>

#include "functors/host_device.h"
#include "functors/parameters.h"

namespace torchbcd::functors {

struct Sign {
  static constexpr const char* name = "sign";
  static constexpr bool continuous = false;
  static constexpr bool differentiable = false;
  static constexpr bool piecewise_linear = false;
  static constexpr bool has_preimages = false;
  static constexpr ParameterCount parameters = {};

  bool monotone() const { return true; }

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
  TORCHBCD_HOST_DEVICE T left_derivative(T u) const {
    return u == T(0) ? std::numeric_limits<T>::infinity() : T(0);
  }
  template <typename T>
  TORCHBCD_HOST_DEVICE T right_derivative(T) const {
    return T(0);
  }

  // b itself, or the nearest point on the other side: half the difference of the squares is 2 sign(b) a.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T across = b < T(0) ? T(0) : -smallest<T>();
    const T more = T(2) * value(b) * a + T(0.5) * gamma * b * b;
    return more < T(0) ? across : (more >= T(0) ? b : more);  // a NaN stays a NaN
  }

 private:
  template <typename T>
  TORCHBCD_HOST_DEVICE static constexpr T smallest() {
    return std::is_same_v<T, float> ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  }
};

}  // namespace torchbcd::functors
