// The blocks of Algorithm 1 that have a non-linear activation inside: least squares through sigma.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "torchbcd/regularizers.h"

namespace torchbcd {

/// min over X (m, q) of kappa/2 |X - C|^2 + gamma/2 |T - sigma(X M^T + O)|^2 + sum r(X), where r covers
/// the first `regularized` columns. With M a layer's weight, X is its V block; with M the layer's inputs and
/// a column of ones, X = [W b] is its W block. Both fall apart into rows of X that share M.
struct NonlinearLeastSquares {
  at::Tensor m;
  at::Tensor offset;  // O, broadcast to (m, p); undefined: zero
  double kappa, gamma;
  const functors::AnyActivation& activation;
  Regularizer regularizer;
  int64_t regularized;

  /// Improves `x` in place, with its `product` X M^T + O (m, p), towards `target` T (m, p). A row for which
  /// no step lowers its objective is left alone. Piecewise linear activations: as PiecewiseQuadratic. Others:
  /// minimisers of a model with the Gram matrix of M, by least squares (Gauss-Newton) or with the
  /// regulariser, each row with a step of its own towards its model's, halved until it lowers the row's
  /// objective by Armijo's rule; where the activation is not monotone from several starts, of which the best
  /// one counts.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                 const at::Tensor& product, const char* where) const;

 private:
  at::Tensor descend_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                      const at::Tensor& product, const char* where) const;
  at::Tensor row_objective(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                           const at::Tensor& product) const;
};

}  // namespace torchbcd
