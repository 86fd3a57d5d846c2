// l(v; y) = max(tau (y - v), (tau - 1) (y - v)), the pinball loss: least in the mean at the tau-quantile of y
// (Koenker and Bassett, 1978). tau = 1/2 is half the absolute difference.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct QuantileLoss : LossTraits {
  static constexpr const char* name = "quantile";
  static constexpr bool differentiable = false;
  static constexpr bool lipschitz_gradient = false;
  static constexpr ParameterCount parameters = {
      .fewest = 1, .most = 1, .must = "loss 'quantile' takes one parameter, its level tau"};

  double tau = 0.5;

  const char* set(const double* values, int) {
    tau = values[0];
    return tau > 0 && tau < 1 ? nullptr : "tau must be between 0 and 1";
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T v, T y) const {
    const T above = y - v;
    return above < T(0) ? static_cast<T>(tau - 1) * above : static_cast<T>(tau) * above;
  }

  // The slope is 1 - tau beyond the target and -tau before it: b moves by that over gamma, as far as y.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T y, T b, T gamma) const {
    const T lowered = b - static_cast<T>(1 - tau) / gamma;
    const T raised = b + static_cast<T>(tau) / gamma;
    const T at_least = raised < y ? raised : y;
    const T moved = lowered > y ? lowered : at_least;
    return b != b ? b : moved;
  }

  // 1 - tau beyond the target, -tau before it, and all between at it, up to rounding.
  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> subdifferential(T v, T y) const {
    const T difference = v - y;
    const T rounding = T(4) * std::numeric_limits<T>::epsilon() * (v < T(0) ? -v : v);
    const T before = static_cast<T>(-tau);
    const T beyond = static_cast<T>(1 - tau);
    return {difference > rounding ? beyond : before, difference < -rounding ? before : beyond};
  }
};

}  // namespace torchbcd::functors
