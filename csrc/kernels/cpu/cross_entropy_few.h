// The prox of rows of the cross-entropy with few classes on the CPU: the rows lie side by side in vectors, so
// that no row waits for itself (functors/losses/cross_entropy_lanes.h). What a row comes to does not depend
// on the rows beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "functors/losses/cross_entropy.h"
#include "functors/losses/cross_entropy_lanes.h"
#include "functors/scalar.h"
#include "kernels/cpu/loops.h"

namespace torchbcd::cpu {

/// Numbers of the rows of a group, and, class by class, of their entries.
struct FewClasses {
  static constexpr int kRows = 64;

  struct Lanes {
    alignas(64) double number[kRows];
    double& operator[](int r) { return number[r]; }
    double operator[](int r) const { return number[r]; }
  };

  FewClasses(int64_t classes_, int64_t rows)
      : classes(classes_),
        stride(rows < kRows ? (rows + 15) / 16 * 16 : kRows),
        x(classes * stride),
        v(x.size()),
        fall(x.size()) {}

  int64_t classes, stride;
  int lanes = 0;  // of rows, whole vectors
  Lanes kappa, shift, step;
  Lanes done;  // 1 for rows that are to stay as they are
  std::vector<double> x, v, fall;
};

// x and kappa. Rows of what is not finite or beyond what float is good for are done with before they begin.
template <typename T>
TORCHBCD_TARGET_CLONES void set_out_rows(FewClasses& rows, const T* target, const T* centre,
                                         const FewClasses::Lanes& per_target) {
  const int n = rows.lanes;
  FewClasses::Lanes total, nothing;
  for (int r = 0; r < n; ++r) {
    total[r] = nothing[r] = 0;
  }
  for (int64_t c = 0; c < rows.classes; ++c) {
    const int64_t at = c * rows.stride;
    double* x = rows.x.data() + at;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < n; ++r) {
      const double t = per_target.number[r] * static_cast<double>(target[at + r]);
      x[r] = static_cast<double>(centre[at + r]) + t;
      total.number[r] += t;
      nothing.number[r] += 0 * x[r];
    }
  }
  for (int r = 0; r < n; ++r) {
    rows.kappa[r] = total[r];
    rows.done[r] = nothing[r] == 0 && functors::cross_entropy_in_range(total[r]) ? 0 : 1;
  }
}

// h to start from, of every row.
inline TORCHBCD_TARGET_CLONES void start_rows(FewClasses& rows) {
  const int n = rows.lanes;
  FewClasses::Lanes first, second;
  alignas(64) float sum[FewClasses::kRows], squares[FewClasses::kRows];
  for (int r = 0; r < n; ++r) {
    first[r] = second[r] = -functors::kInfinity;
    sum[r] = squares[r] = -1;  // without the greatest entry
  }
  for (int64_t c = 0; c < rows.classes; ++c) {
    const double* x = rows.x.data() + c * rows.stride;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < n; ++r) {
      const double less = x[r] < first[r] ? x[r] : first[r];
      second[r] = less > second[r] ? less : second[r];
      first[r] = x[r] > first[r] ? x[r] : first[r];
    }
  }
  for (int64_t c = 0; c < rows.classes; ++c) {
    const double* x = rows.x.data() + c * rows.stride;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < n; ++r) {
      const float e = functors::cross_entropy_power(static_cast<float>(x[r] - second[r]));
      sum[r] += e;
      squares[r] += e * e;
    }
  }
  TORCHBCD_VECTORIZE
  for (int r = 0; r < n; ++r) {
    rows.shift[r] = functors::cross_entropy_start(first[r], second[r], sum[r], squares[r], rows.kappa[r]);
  }
}

// Entries in float, and a step of h.
inline TORCHBCD_TARGET_CLONES void step_rows(FewClasses& rows) {
  const int n = rows.lanes;
  alignas(64) float sum[FewClasses::kRows], fall[FewClasses::kRows], bend[FewClasses::kRows];
  for (int r = 0; r < n; ++r) {
    sum[r] = fall[r] = bend[r] = 0;
  }
  for (int64_t c = 0; c < rows.classes; ++c) {
    const double* x = rows.x.data() + c * rows.stride;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < n; ++r) {
      const float now = functors::cross_entropy_entry(static_cast<float>(x[r] - rows.shift.number[r]));
      const float inverse = 1 / (1 + now);
      const float f = now * inverse;
      sum[r] += now;
      fall[r] += f;
      bend[r] += f * (inverse * inverse);
    }
  }
  TORCHBCD_VECTORIZE
  for (int r = 0; r < n; ++r) {
    const double step = functors::cross_entropy_step({sum[r], fall[r], bend[r]}, rows.kappa.number[r]);
    rows.step.number[r] = step;
    rows.shift.number[r] += step;
  }
}

// Entries in float64, and the next step of h. Rows are done when that is at most `enough`: it is
// not taken then, but its length goes into the states.
inline TORCHBCD_TARGET_CLONES void refine_rows(FewClasses& rows, double enough) {
  const int n = rows.lanes;
  FewClasses::Lanes sum, fall, bend, off;
  for (int r = 0; r < n; ++r) {
    sum[r] = fall[r] = bend[r] = off[r] = 0;
  }
  for (int64_t c = 0; c < rows.classes; ++c) {
    const int64_t at = c * rows.stride;
    const double* x = rows.x.data() + at;
    double* v = rows.v.data() + at;
    double* f = rows.fall.data() + at;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < n; ++r) {
      const float nearby = functors::cross_entropy_entry(static_cast<float>(x[r] - rows.shift.number[r]));
      const functors::CrossEntropyEntry entry(x[r], rows.shift.number[r], nearby);
      const double rest = 1 - entry.fall;
      const double done = rows.done.number[r];
      v[r] = done > 0 ? v[r] : entry.v;
      f[r] = done > 0 ? f[r] : entry.fall;
      sum.number[r] += entry.w;
      fall.number[r] += entry.fall;
      bend.number[r] += entry.fall * (rest * rest);
      off.number[r] += entry.off;
    }
  }
  TORCHBCD_VECTORIZE
  for (int r = 0; r < n; ++r) {
    const double step = functors::cross_entropy_step({sum[r], fall[r], bend[r]}, rows.kappa.number[r]);
    const double small = std::fabs(step) <= enough ? 1.0 : 0.0;
    const double found = off.number[r] <= 1e-3 ? small : 0.0;
    const double done = rows.done.number[r];
    rows.step.number[r] = done > 0 ? rows.step.number[r] : step;
    rows.shift.number[r] += done + found > 0 ? 0.0 : step;
    rows.done.number[r] = done > 0 ? done : found;
  }
}

// The states at the end of the last step.
inline TORCHBCD_TARGET_CLONES void finish_rows(FewClasses& rows) {
  for (int64_t c = 0; c < rows.classes; ++c) {
    double* v = rows.v.data() + c * rows.stride;
    const double* f = rows.fall.data() + c * rows.stride;
    TORCHBCD_VECTORIZE
    for (int r = 0; r < rows.lanes; ++r) {
      v[r] = functors::cross_entropy_state(v[r], f[r], rows.step.number[r]);
    }
  }
}

/// Solves up to kRows problems with one number of classes.
template <typename T>
class FewClassesSolver {
 public:
  /// For groups of no more than `rows` rows, or kRows.
  FewClassesSolver(int64_t classes, int64_t rows)
      : rows_(classes, rows), target_(rows_.x.size()), centre_(rows_.x.size()) {}

  /// solved[r] says whether row r was solved; else it is as before.
  void solve(const functors::CrossEntropyRow<T>* problem, int n, bool* solved) {
    rows_.lanes = (n + 15) / 16 * 16;
    for (int r = 0; r < rows_.lanes; ++r) {
      load(problem[r < n ? r : 0], r);
    }
    set_out_rows(rows_, target_.data(), centre_.data(), per_target_);
    for (int r = 0; r < n; ++r) {
      solved[r] = problem[r].regularizer.none() && !(rows_.done[r] > 0);
    }
    if (rows_.classes > 1) {
      iterate();
    } else {  // one class has a softmax of 1 wherever it is
      std::copy(centre_.begin(), centre_.begin() + rows_.lanes, rows_.v.begin());
      std::fill_n(rows_.done.number, rows_.lanes, 1.0);
    }
    for (int r = 0; r < n; ++r) {
      solved[r] = solved[r] && rows_.done[r] > 0;
      if (solved[r]) {
        const auto& row = problem[r];
        for (int64_t c = 0; c < rows_.classes; ++c) {
          row.out[c * row.out_stride] = static_cast<T>(rows_.v[c * rows_.stride + r]);
        }
      }
    }
  }

 private:
  void iterate() {
    start_rows(rows_);
    step_rows(rows_);
    step_rows(rows_);
    for (int k = 0; k < 8 && !all_done(); ++k) {
      refine_rows(rows_, sizeof(T) == 4 ? 1e-4 : 1e-5);
    }
    finish_rows(rows_);
  }

  void load(const functors::CrossEntropyRow<T>& row, int r) {
    per_target_[r] = row.weight / row.gamma;
    for (int64_t c = 0; c < rows_.classes; ++c) {
      target_[c * rows_.stride + r] = row.target[c * row.target_stride];
      centre_[c * rows_.stride + r] = row.centre[c * row.centre_stride];
    }
  }

  bool all_done() const {
    return std::all_of(rows_.done.number, rows_.done.number + rows_.lanes, [](double d) { return d > 0; });
  }

  FewClasses rows_;
  FewClasses::Lanes per_target_;
  std::vector<T> target_, centre_;
};

}  // namespace torchbcd::cpu
