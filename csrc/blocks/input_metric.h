// How far weights of the first layer have moved, measured on inputs as they are or on standardised ones.
//
// The proximal term of a W block may be any norm: the block lowers its objective all the same. On inputs with
// a large common offset, or columns of very different scale, alpha/2 |D|^2 binds every direction that
// matters: there it is alpha/2 |D S|^2 + alpha_bias/2 |d + D m|^2, with the columns' means m and standard
// deviations S, which is the ordinary one for the inputs (x - m) S^{-1}.
#pragma once

#include <ATen/core/Tensor.h>

#include "linalg/affine_map.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// Whether rows x (n, d) have an offset many times their spread, which counts only where there is a bias to
/// take it, or columns of spreads many times apart; told from the first ones, or, where there are rows in
/// several processes, or weights, from all.
bool poorly_scaled(const at::Tensor& x, bool bias, const Totals& totals);

/// W loses a part of itself, and b takes over what that takes off the image of x's mean: decay in centred
/// inputs. Without a bias to take it nothing is lost.
void shrink_centred_(const AffineMap& map, double part, const at::Tensor& x, const Totals& totals);

class InputMetric {
 public:
  /// Of the rows of x. A column that does not vary keeps its scale, and without `centred` all their offset.
  InputMetric(const at::Tensor& x, bool centred, const Totals& totals);

  /// (x - m) S^{-1}
  at::Tensor standardized(const at::Tensor& x) const;
  /// The step of x's own map that does what `step` does to standardised inputs, in its place.
  void to_inputs_(const AffineMap& step) const;

 private:
  at::Tensor mean_, scale_;  // (d,)
};

}  // namespace torchbcd
