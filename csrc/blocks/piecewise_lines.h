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
  /// argmin over u of 1/2 (t - sigma(u))^2 + ratio/2 (u - b)^2
  at::Tensor prox(const at::Tensor& t, const at::Tensor& b, double ratio) const;
};

}  // namespace torchbcd
