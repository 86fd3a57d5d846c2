// What a sweep of RelaxedBCD, which goes from the last layer to the first, knows of the layers that end a
// branch when it comes to the states that the branch began with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "blocks/relaxed_states.h"
#include "torchbcd/skip.h"

namespace torchbcd {

class SkipResiduals {
 public:
  SkipResiduals(const std::vector<Skip>& skips, size_t depth)
      : skips_(skips), residuals_(depth), wanted_(depth) {}

  /// The weights of layer l are about to move, and leave `residual` behind.
  void before_weights(size_t l, const at::Tensor& residual);

  /// The layers further on that read U or V of layer i, whose successor is l, as they are. Their directions
  /// are those before the branch took its part where it is `before_branch` that is wanted.
  std::vector<SkipReader> readers(size_t i, const std::vector<double>& penalties, bool before_branch) const;

  /// The states that layer l reads have moved: what is left of its residual, and of those of the problem's
  /// skips.
  void moved(size_t l, const StateProblem& problem, const StateMoved& moved);
  /// The same of skips alone.
  void moved(const std::vector<SkipReader>& skips, const std::vector<at::Tensor>& residuals);

 private:
  const std::vector<Skip>& skips_;
  std::vector<at::Tensor> residuals_;  // of the layers that end a branch, since their inputs have moved
  std::vector<at::Tensor> wanted_;     // and before their weights did
};

}  // namespace torchbcd
