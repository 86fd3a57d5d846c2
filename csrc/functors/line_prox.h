// The prox of a line, and of a line between two points that is flat beyond them.
#pragma once

#include "functors/host_device.h"

namespace torchbcd::functors {

// argmin over u of 1/2 (slope u - a)^2 + gamma/2 (u - b)^2: the mean of a/slope and b with weights slope^2
// and gamma, in the form of the two that rounds less.
template <typename T>
TORCHBCD_HOST_DEVICE T line_prox(T a, T b, T gamma, T slope) {
  const T square = slope * slope;
  return gamma < square ? a / slope + (b - a / slope) * (gamma / (square + gamma))
                        : b + slope * (a - slope * b) / (square + gamma);
}

// The prox of an activation that is a line between two points and flat beyond them. Between them the
// minimiser is the line's, cut off there; with it competes b itself, where it lies beyond one of them, and
// nothing on the far side, which the other point already beats. The difference of the two objectives is
// written in products of differences, as for a leaky ReLU. `line` is the line's minimiser, `low` and `high`
// are the points.
template <typename T, typename ActivationFunctor>
TORCHBCD_HOST_DEVICE T clipped_prox(const ActivationFunctor& activation, T a, T b, T gamma, T line, T low,
                                    T high) {
  const T between = line < low ? low : (line > high ? high : line);
  const T value = activation.value(between);
  const T flat = activation.value(b);
  const T difference = (value - flat) * ((value - a) + (flat - a)) + gamma * (between - b) * (between - b);
  const bool beyond = b < low || b > high;
  return beyond && difference > T(0) ? b : between;
}

}  // namespace torchbcd::functors
