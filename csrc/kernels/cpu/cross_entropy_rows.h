// The prox of rows of the cross-entropy on the CPU: which loops a row goes to.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "kernels/cpu/cross_entropy_few.h"
#include "kernels/cpu/cross_entropy_many.h"

namespace torchbcd::cpu {

/// Solves `rows` rows, or any number of groups of kRows, of data of type T with one number of classes.
template <typename T>
class CrossEntropySolver {
 public:
  static constexpr int kRows = FewClasses::kRows;
  static constexpr int64_t kFew = 128;

  CrossEntropySolver(int64_t classes, int64_t rows) {
    if (classes <= kFew) {
      few_.emplace(classes, rows);
    } else {
      many_.emplace(classes);
    }
  }

  /// solved[r] says whether row r of n <= kRows was solved; else it is as before.
  void solve(const functors::CrossEntropyRow<T>* problem, int n, bool* solved) {
    if (few_) {
      few_->solve(problem, n, solved);
      return;
    }
    for (int r = 0; r < n; ++r) {
      solved[r] = many_->solve(problem[r]);
    }
  }

 private:
  std::optional<FewClassesSolver<T>> few_;
  std::optional<ManyClassesSolver<T>> many_;
};

}  // namespace torchbcd::cpu
