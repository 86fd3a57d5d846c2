// The loop over entries of a pass that is a prox with trials (functors/trial.h): a tile of problems at a
// time, each trial over the entries that want it, in vectors, and what no trial settles one by one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "functors/trial.h"
#include "kernels/cpu/loops.h"

namespace torchbcd::cpu {

inline constexpr int kTrialTile = 1024;

struct Problems {
  alignas(64) std::array<double, kTrialTile> a, b, gamma;

  functors::ProxProblem operator[](int i) const { return {a[i], b[i], gamma[i]}; }
  void set(int i, const functors::ProxProblem& p) {
    a[i] = p.a;
    b[i] = p.b;
    gamma[i] = p.gamma;
  }
};

struct Trials {
  alignas(64) std::array<double, kTrialTile> u, verdict;

  functors::Trial operator[](int i) const { return {u[i], verdict[i]}; }
  void set(int i, const functors::Trial& trial) {
    u[i] = trial.u;
    verdict[i] = trial.verdict;
  }
};

template <typename T, typename Prox>
TORCHBCD_TARGET_CLONES void first_trials(const Prox& prox, int n, const Problems& problems, Trials& trials) {
  TORCHBCD_VECTORIZE
  for (int i = 0; i < n; ++i) {
    const functors::Trial trial =
        prox.template first_trial<T>(functors::ProxProblem{problems.a[i], problems.b[i], problems.gamma[i]});
    trials.u[i] = trial.u;
    trials.verdict[i] = trial.verdict;
  }
}

template <typename T, typename Prox>
TORCHBCD_TARGET_CLONES void second_trials(const Prox& prox, int n, const Problems& problems, Trials& trials) {
  TORCHBCD_VECTORIZE
  for (int i = 0; i < n; ++i) {
    const functors::Trial trial =
        prox.template second_trial<T>(functors::ProxProblem{problems.a[i], problems.b[i], problems.gamma[i]},
                                      functors::Trial{trials.u[i], trials.verdict[i]});
    trials.u[i] = trial.u;
    trials.verdict[i] = trial.verdict;
  }
}

template <typename T, typename Prox>
TORCHBCD_TARGET_CLONES void last_trials(const Prox& prox, int n, const Problems& problems, Trials& trials) {
  TORCHBCD_VECTORIZE
  for (int i = 0; i < n; ++i) {
    const functors::Trial trial =
        prox.template last_trial<T>(functors::ProxProblem{problems.a[i], problems.b[i], problems.gamma[i]});
    trials.u[i] = trial.u;
    trials.verdict[i] = trial.verdict;
  }
}

// The number with copies of the first one after the last, so that no vector is left in part: what is done one
// by one costs as much each as a vector.
inline int whole_vectors(int n, Problems& problems, Trials& trials) {
  for (; n % 16 != 0; ++n) {
    problems.set(n, problems[0]);
    trials.set(n, trials[0]);
  }
  return n;
}

// Those of the first n that `want` another trial, side by side for it.
template <typename Want, typename Again>
void try_again(int n, const Problems& problems, Trials& trials, const Want& want, const Again& again) {
  Problems few;
  Trials theirs;
  std::array<int, kTrialTile> of;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (want(trials.verdict[i])) {
      of[count] = i;
      few.set(count, problems[i]);
      theirs.set(count, trials[i]);
      ++count;
    }
  }
  if (count > 0) {
    const int all = whole_vectors(count, few, theirs);
    again(all, few, theirs);
    for (int k = 0; k < count; ++k) {
      trials.set(of[k], theirs[k]);
    }
  }
}

// The minimisers of the first n problems, n <= kTrialTile.
template <typename T, typename Prox>
void solve_tile(const Prox& prox, int n, const Problems& problems, Trials& trials) {
  first_trials<T>(prox, n, problems, trials);
  if constexpr (requires { prox.template second_trial<T>(problems[0], trials[0]); }) {
    try_again(
        n, problems, trials, [](double verdict) { return verdict > functors::kUnsettled; },
        [&prox](int count, const Problems& p, Trials& t) { second_trials<T>(prox, count, p, t); });
  }
  if constexpr (requires { prox.template last_trial<T>(problems[0]); }) {
    try_again(
        n, problems, trials, [](double verdict) { return verdict != functors::kSettled; },
        [&prox](int count, const Problems& p, Trials& t) { last_trials<T>(prox, count, p, t); });
  }
  for (int i = 0; i < n; ++i) {
    if (trials.verdict[i] != functors::kSettled) {
      trials.u[i] = prox.solve(problems[i]);
    }
  }
}

// The entries of a stretch, which has `n`, the numbers *input(t, i), and put(i, result).
template <typename T, typename Functor, typename Stretch, size_t... In>
void trial_loop(const Functor& functor, const Stretch& stretch, std::index_sequence<In...>) {
  Problems problems;
  Trials trials;
  for (int64_t begin = 0; begin < stretch.n; begin += kTrialTile) {
    const int size = static_cast<int>(std::min<int64_t>(kTrialTile, stretch.n - begin));
    for (int i = 0; i < size; ++i) {
      problems.set(i, functor.problem(*stretch.input(In, begin + i)...));
    }
    solve_tile<T>(functor.proximal(), size, problems, trials);
    for (int i = 0; i < size; ++i) {
      stretch.put(begin + i, functor.result(static_cast<T>(trials.u[i]), *stretch.input(In, begin + i)...));
    }
  }
}

}  // namespace torchbcd::cpu
