// The prox of a row of the cross-entropy on the CPU, its classes in vectors
// (functors/losses/cross_entropy_lanes.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "functors/losses/cross_entropy.h"
#include "functors/losses/cross_entropy_lanes.h"
#include "kernels/cpu/loops.h"

namespace torchbcd::cpu {

template <typename C>
struct ClassEntries {
  std::vector<C> w, fall, off;

  explicit ClassEntries(int64_t classes) : w(classes, C(1)), fall(classes), off(classes) {}
};

template <typename C>
TORCHBCD_TARGET_CLONES void step_entries(const std::vector<double>& differences, double s,
                                         ClassEntries<C>& entries) {
  const int64_t n = differences.size();
  const double* x = differences.data();
  C* w = entries.w.data();
  C* fall = entries.fall.data();
  C* off = entries.off.data();
  TORCHBCD_VECTORIZE
  for (int64_t c = 0; c < n; ++c) {
    const auto entry = functors::CrossEntropyLanes<C>::at(static_cast<C>(x[c] - s), w[c]);
    w[c] = entry.w;
    fall[c] = entry.fall;
    off[c] = entry.off;
  }
}

inline TORCHBCD_TARGET_CLONES double log_sum_of_exponentials(const std::vector<double>& x, double greatest) {
  return greatest + std::log(sum_in_lanes(x.size(), [greatest, n = x.data()](int64_t c) {
           return functors::exp_nonpositive(n[c] - greatest);
         }));
}

template <typename C>
TORCHBCD_TARGET_CLONES double sum_of(const std::vector<C>& numbers) {
  return sum_in_lanes(numbers.size(), [n = numbers.data()](int64_t c) { return n[c]; });
}

// The step of s that its Newton iteration makes.
template <typename C>
double newton_step(const ClassEntries<C>& entries, double kappa, double log_kappa) {
  const double sum = sum_of(entries.w);
  return (sum + std::log(sum) - kappa - log_kappa) / ((1 + 1 / sum) * sum_of(entries.fall));
}

// The states in place of `centre`, at s + step.
inline TORCHBCD_TARGET_CLONES void states_of(const ClassEntries<double>& entries, double s, double step,
                                             double log_kappa, std::vector<double>& centre) {
  const int64_t n = centre.size();
  const double* w = entries.w.data();
  const double* fall = entries.fall.data();
  double* v = centre.data();
  TORCHBCD_VECTORIZE
  for (int64_t c = 0; c < n; ++c) {
    v[c] = functors::cross_entropy_state(w[c], fall[c], s, step, log_kappa, v[c]);
  }
}

/// Solves rows of data of type T with one number of classes; most of it in T, the end in float64.
template <typename T>
class CrossEntropySolver {
 public:
  explicit CrossEntropySolver(int64_t classes)
      : classes_(classes),
        centre_(padded(classes)),
        x_(padded(classes), kNothing),
        rough_(std::is_same_v<T, double> ? 0 : padded(classes)),
        fine_(padded(classes)) {}

  /// Whether the row was solved; else it is as before.
  bool solve(const functors::CrossEntropyRow<T>& row) {
    double total = 0;
    for (int64_t c = 0; c < classes_; ++c) {
      total += row.t(c);
    }
    const double kappa = total / row.gamma;
    const double log_kappa = std::log(kappa);
    double greatest = -functors::kInfinity;
    for (int64_t c = 0; c < classes_; ++c) {
      centre_[c] = row.b(c) + row.t(c) / row.gamma;
      x_[c] = centre_[c] + log_kappa;
      greatest = x_[c] > greatest ? x_[c] : greatest;
    }
    // What is not finite, a NaN in the row too, goes the other way.
    if (!row.regularizer.none() || !std::isfinite(log_kappa) || !std::isfinite(greatest)) {
      return false;
    }
    double s = log_sum_of_exponentials(x_, greatest) - log_kappa;
    if constexpr (!std::is_same_v<T, double>) {
      iterate(rough_, s, kappa, log_kappa, {1e-3, 1e-3});
      std::copy(rough_.w.begin(), rough_.w.end(), fine_.w.begin());
    } else {
      std::fill(fine_.w.begin(), fine_.w.end(), 1.0);
    }
    const Small small = std::is_same_v<T, double> ? Small{1e-8, 1e-4} : Small{1e-6, 1e-3};
    const double step = iterate(fine_, s, kappa, log_kappa, small);
    if (!small.are(step, fine_)) {
      return false;
    }
    states_of(fine_, s - step, step, log_kappa, centre_);
    for (int64_t c = 0; c < classes_; ++c) {
      row.out[c * row.out_stride] = static_cast<T>(centre_[c]);
    }
    return true;
  }

 private:
  // Whole vectors: entries beyond the classes are of an x that is nothing to a sum.
  static constexpr double kNothing = -1e300;
  static int64_t padded(int64_t classes) { return (classes + 15) / 16 * 16; }

  // A last step whose square, and entries whose fourth powers, are nothing.
  struct Small {
    double step, off;

    template <typename C>
    bool are(double last, const ClassEntries<C>& entries) const {
      return std::fabs(last) <= step && sum_of(entries.off) <= off;
    }
  };

  // Steps of s until they are small, at most twenty; returns the last one.
  template <typename C>
  double iterate(ClassEntries<C>& entries, double& s, double kappa, double log_kappa,
                 const Small& small) const {
    double step = functors::kInfinity;
    for (int k = 0; k < 20; ++k) {
      step_entries(x_, s, entries);
      step = newton_step(entries, kappa, log_kappa);
      s += step;
      if (small.are(step, entries)) {
        break;
      }
    }
    return step;
  }

  int64_t classes_;
  std::vector<double> centre_, x_;
  ClassEntries<T> rough_;
  ClassEntries<double> fine_;
};

}  // namespace torchbcd::cpu
