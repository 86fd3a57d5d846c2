// A piecewise linear activation as lines between kinks.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "functors/activations.h"

namespace torchbcd {

/// Whether an activation is made of lines and has no jump.
bool is_piecewise_linear(const functors::AnyActivation& activation);

/// Its lines: between kinks k - 1 and k it is slopes[k] u + levels[k].
struct PiecewiseLines {
  std::vector<double> kinks, slopes, levels;
  at::Tensor slope, level;  // the same, on the data's device

  PiecewiseLines(const functors::AnyActivation& activation, const at::TensorOptions& options);

  /// The line of every entry; at a kink the one on its left.
  at::Tensor piece(const at::Tensor& u) const;
  size_t steepest() const;
};

}  // namespace torchbcd
