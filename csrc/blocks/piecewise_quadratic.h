// Least squares through a piecewise linear activation: the blocks of Algorithm 1 that are not convex.
//
// Row by row it is a continuous piecewise quadratic function. At a kink of a unit it is either concave, where
// no minimiser lies, or convex: then its slope jumps up there, and a step either stays on the kink or leaves
// it to the side to which the multiplier of the condition "stays on the kink" points, which must lie in the
// jump for it to stay. So a direction is that of the quadratic problem
//
//     min over d of  1/2 d^T H d + sup over l in [low, high] of (g + E^T l)^T d,
//
// with a row of E for every kink that the point is on; its dual is a quadratic problem with bounds, of the
// size of those kinks. Along a direction the minimum over all pieces ahead is found from the sorted kinks.
// Where no direction is left, zero is in the subdifferential. What remains is that there are several such
// points: the descent begins at several starts, and the best one counts.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "torchbcd/regularizers.h"

namespace torchbcd {

/// min over X (m, q) of kappa/2 |X - C|^2 + gamma/2 |T - sigma(X M^T + O)|^2 + sum r(X), where r covers the
/// first `regularized` columns, for a piecewise linear, continuous sigma.
struct PiecewiseQuadratic {
  at::Tensor m;       // (p, q)
  at::Tensor offset;  // O, broadcast to (m, p); undefined: zero
  double kappa, gamma;
  const functors::AnyActivation& activation;
  Regularizer regularizer;
  int64_t regularized;

  /// Improves `x` in place, towards `target` T (m, p), in float64 whatever the data are. A row for which
  /// nothing better is found, once rounded to the data's precision, is left alone.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target) const;
};

}  // namespace torchbcd
