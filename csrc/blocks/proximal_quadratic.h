// Quadratics with one Hessian for all rows plus a regulariser of one's own (blocks/proximal_descent.h).
//
// With the bias eliminated, F(W) = 1/2 <(W - C) S, W - C> - <B, W - C> + scale r(W), whose gradient has the
// largest eigenvalue of S for its Lipschitz constant, and whose quadratic part changes by exactly
// <(grad W + grad Z) / 2, Z - W>.
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
