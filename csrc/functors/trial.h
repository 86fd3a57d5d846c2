// Proxes in lanes. A prox that takes iterations has two forms. solve() takes as many as it needs, with
// branches, and always ends at the global minimiser. Trials take a fixed number without a branch, so that a
// compiler does several entries at once; a trial says whether its result is settled: shown to be the global
// minimiser, to what float64 resolves. The few entries that are not go to solve(), or before that to a last,
// longer trial where there is one.
#pragma once

#include <cmath>

#include "functors/host_device.h"

namespace torchbcd::functors {

// argmin over u of l(u; a) + gamma/2 (u - b)^2, for a loss or the square distance to an activation.
struct ProxProblem {
  double a, b, gamma;
};

// Where a trial ended, as numbers: a vector's lanes select among them cheaply.
inline constexpr double kSettled = 0;
inline constexpr double kUnsettled = 1;
// A second trial is worth while: another minimiser may be lower than `u`, which is one, than `u`, which is
// not known well enough, or there is no minimiser where the first trial looked.
inline constexpr double kOneOfTwo = 2;
inline constexpr double kOtherUnknown = 3;
inline constexpr double kOtherMissing = 4;

struct Trial {
  double u;
  double verdict;
};

// Halley's step to a root of f, from it and its derivatives, and the divisor, positive where it is to be
// trusted; Newton's where the second derivative is given as 0.
template <typename C>
struct HalleyStep {
  C length, divisor;

  TORCHBCD_HOST_DEVICE HalleyStep(C value, C slope, C bend) : divisor(slope * slope - C(0.5) * value * bend) {
    length = -value * slope / divisor;
  }
};

// A point inside a bracket of a root at which f rises.
template <typename C>
struct Bracketed {
  C u, low, high;

  // After f at u: the step where it stays inside and `trusted` is positive, else the middle.
  TORCHBCD_HOST_DEVICE Bracketed moved(C value, C step, C trusted) const {
    const C left = value < 0 ? u : low;
    const C right = value > 0 ? u : high;
    const C stepped = u + step;
    const C middle = C(0.5) * (left + right);
    const C inside = stepped >= left ? (stepped <= right ? stepped : middle) : middle;
    return {trusted > 0 ? inside : middle, left, right};
  }
};

// 1 where the last step tells a root of f that it found: small beside `size`, that of the root or of what it
// is compared with, and beside the interval on which the slope, positive, keeps its size.
TORCHBCD_HOST_DEVICE double found_by(double step, double size, double slope, double bend) {
  const double moved = std::fabs(step);
  const double most = std::fabs(size) < 1 ? std::fabs(size) : 1;
  const double small = moved <= 1e-5 * most ? 1.0 : 0.0;
  return moved * std::fabs(bend) <= 1e-3 * slope ? small : 0.0;
}

// The minimiser by trials, one entry at a time, in arithmetic of T as far as that goes.
template <typename T, typename Functor>
TORCHBCD_HOST_DEVICE_CALL double solve_by_trials(const Functor& functor, const ProxProblem& problem) {
  Trial trial = functor.template first_trial<T>(problem);
  if constexpr (requires { functor.template second_trial<T>(problem, trial); }) {
    if (trial.verdict > kUnsettled) {
      trial = functor.template second_trial<T>(problem, trial);
    }
  }
  if constexpr (requires { functor.template last_trial<T>(problem); }) {
    if (trial.verdict != kSettled) {
      trial = functor.template last_trial<T>(problem);
    }
  }
  return trial.verdict == kSettled ? trial.u : functor.solve(problem);
}

}  // namespace torchbcd::functors
