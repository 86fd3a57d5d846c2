// Quadratics with one Hessian for all rows plus a regulariser of one's own, by accelerated proximal
// gradients.
//
// With the bias eliminated, F(W) = 1/2 <(W - C) S, W - C> - <B, W - C> + scale r(W). From a point Y a step
// goes to Z = prox(Y - grad / L), L the largest eigenvalue of S, so that from Y = W an exact prox never
// raises F (Beck and Teboulle, 2009). Z is kept only where F(Z) < F(W), which is measured: F's quadratic part
// changes by exactly <(grad W + grad Z) / 2, Z - W>. Where an extrapolated Y does not lead down, the next
// step starts from W itself; where that does not, W is as good as rounding, or the prox, can tell. So F falls
// with every point that is kept, whatever r and its prox are (Li and Lin, 2015, for r that is not convex).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "blocks/normed_quadratic.h"

namespace torchbcd {

/// With a term of one's own.
class ProximalQuadratic {
 public:
  /// `where` begins errors.
  ProximalQuadratic(NormedQuadratic problem, std::string where);

  /// As WeightQuadratic's, until the gradient and an element of r's subdifferential are within 1e-10
  /// (float64) or 1e-7 (float32) of each other, entry by entry, relative to the largest entry of B; or for
  /// 500 steps. Where X moves, its first columns are an answer of the prox, to the bit. Throws as prox_of and
  /// value_of do.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  NormedQuadratic problem_;
  std::string where_;
  at::Tensor system_;  // S
  double largest_;     // its largest eigenvalue
};

}  // namespace torchbcd
