// What activations that are a line between two points and flat beyond them have in common.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

template <typename T>
struct Line {
  T low, high;  // the points
  T slope;
};

// Self also has line<T>(), its value, line_minimiser and preimages.
template <typename Self>
struct ClippedLine : ActivationTraits {
  static constexpr bool piecewise_linear = true;
  static constexpr bool has_preimages = true;

  std::array<double, 2> kinks() const {
    const Line<double> line = self().template line<double>();
    return {line.low, line.high};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    const Line<T> line = self().template line<T>();
    return u <= line.low ? -1 : (u >= line.high ? 1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? self().template line<T>().slope : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    const Line<T> line = self().template line<T>();
    return {u > line.low && u <= line.high ? line.slope : T(0),
            u >= line.low && u < line.high ? line.slope : T(0)};
  }

  // Between the points the minimiser is the line's, cut off there; with it competes b itself, where it lies
  // beyond one of them, and nothing on the far side, which the other point already beats. The difference of
  // the two objectives is written in products of differences, as for a leaky ReLU.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const Line<T> line = self().template line<T>();
    const T between = clip(self().line_minimiser(a, b, gamma), line.low, line.high);
    const T value = self().value(between);
    const T flat = self().value(b);
    const T difference = (value - flat) * ((value - a) + (flat - a)) + gamma * (between - b) * (between - b);
    const bool beyond = b < line.low || b > line.high;
    return beyond && difference > T(0) ? b : between;
  }

 private:
  TORCHBCD_HOST_DEVICE const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace torchbcd::functors
