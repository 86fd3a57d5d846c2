// Accelerated proximal gradient: for a quadratic plus a non-smooth regulariser, never increasing its
// objective, and for the output's loss.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/losses.h"
#include "torchbcd/regularizers.h"

namespace torchbcd {

/// min over X (m, d) of 1/2 <(X - C) H, X - C> - <B, X - C> + scale sum r(X), where r covers the first
/// `regularized` columns of X. It works on the (d, d) matrix H alone, whatever that was summed over.
class QuadraticPlusRegularizer {
 public:
  QuadraticPlusRegularizer() = default;
  /// `hessian` (d, d) is symmetric positive definite, both triangles given.
  QuadraticPlusRegularizer(at::Tensor hessian, const Regularizer& regularizer, double scale,
                           int64_t regularized);

  /// Improves `x` in place. Stops where a step moves no entry by more than 1e-10 (float64) or 1e-6 (float32)
  /// of the largest, or after 200 iterations; entries that the regulariser sets to zero or to a bound are
  /// exactly there.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  double objective(const at::Tensor& x, const at::Tensor& difference, const at::Tensor& image,
                   const at::Tensor& linear) const;

  at::Tensor hessian_;
  Regularizer regularizer_;
  double scale_ = 1;
  int64_t regularized_ = 0;
  double lipschitz_ = 0;
};

/// The sum of a regulariser over the entries of `values`, in float64; infinite outside its bounds.
double regularizer_value(const Regularizer& regularizer, const at::Tensor& values);

/// z_L as Wang et al. solve eq. (5); the library's own prox is exact and faster: this is there to compare
/// with. out = argmin over z of weight sum_rows w_row l(z; y) + rho/2 |z - q|^2 by FISTA (Beck & Teboulle,
/// 2009), started from the better of `z` and `q` in each row, and no worse than `z` in any. For losses with a
/// Lipschitz gradient.
void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const functors::AnyLoss& loss, double weight, double rho, const at::Tensor& out);

/// Whether fista_output takes a loss.
bool has_lipschitz_gradient(const functors::AnyLoss& loss);

}  // namespace torchbcd
