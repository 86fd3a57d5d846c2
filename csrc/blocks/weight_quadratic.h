// What W blocks are whose regulariser is not a squared norm: one Hessian for all rows plus a
// WeightRegularizer.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "blocks/normed_quadratic.h"
#include "blocks/proximal_quadratic.h"
#include "blocks/regularized_quadratic.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// min over X (m, d) of 1/2 <(X - C) H, X - C> - <B, X - C> + scale r(X'), with X' the first `regularized`
/// columns of X; one more is the bias. In float64, whatever the data are.
class WeightQuadratic {
 public:
  WeightQuadratic() = default;
  /// `hessian` (d, d) is symmetric positive definite, both triangles given. Errors of a term of one's own
  /// begin with `where`.
  WeightQuadratic(const at::Tensor& hessian, const WeightRegularizer& regularizer, double scale,
                  int64_t regularized, const char* where);

  /// Improves `x` in place, as closely as QuadraticPlusRegularizer, or until rounding ends it. Where it
  /// moves, it is within the constraints, to the bit (is_inside), and zeros are exact. It is never worse than
  /// it was: no row is, or, with norms of columns or a term of one's own, their sum.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  QuadraticPlusRegularizer without_norms_;
  std::optional<ColumnNorms> columns_;
  std::optional<RowNorms> rows_;
  std::optional<RowSums> sums_;
  std::optional<ProximalQuadratic> proximal_;
};

}  // namespace torchbcd
