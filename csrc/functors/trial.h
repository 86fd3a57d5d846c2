// Proxes in lanes. A prox that takes iterations has two forms. solve() takes as many as it needs, with
// branches, and always ends at the global minimiser. Trials take a fixed number without a branch, so that a
// compiler does several entries at once; a trial says whether its result is settled: shown to be the global
// minimiser, to what float64 resolves. The few entries that are not go to solve().
#pragma once

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

// The minimiser by trials, one entry at a time, in arithmetic of T as far as that goes.
template <typename T, typename Functor>
TORCHBCD_HOST_DEVICE_CALL double solve_by_trials(const Functor& functor, const ProxProblem& problem) {
  Trial trial = functor.template first_trial<T>(problem);
  if constexpr (requires { functor.template second_trial<T>(problem, trial); }) {
    if (trial.verdict > kUnsettled) {
      trial = functor.template second_trial<T>(problem, trial);
    }
  }
  return trial.verdict == kSettled ? trial.u : functor.solve(problem);
}

}  // namespace torchbcd::functors
