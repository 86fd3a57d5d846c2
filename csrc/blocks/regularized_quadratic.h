// Quadratics with one Hessian for all rows plus a regulariser that is not smooth: what W and V blocks with
// the 1-norm, an elastic net or bounds are.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "torchbcd/regularizers.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// min over X (m, d) of 1/2 <(X - C) H, X - C> - <B, X - C> + scale sum r(X), where r covers the first
/// `regularized` columns of X: its terms for entries and its signs of columns, but none of its norms. It
/// works on the (d, d) matrix H alone, whatever that was summed over.
///
/// Passes of coordinate descent find which entries lie on a kink of r, at zero or on a bound; where they do
/// not end soon, Newton steps on a row's other entries find their values. In float64, whatever the data are.
class QuadraticPlusRegularizer {
 public:
  QuadraticPlusRegularizer() = default;
  /// `hessian` (d, d) is symmetric positive definite, both triangles given.
  QuadraticPlusRegularizer(const at::Tensor& hessian, const WeightRegularizer& regularizer, double scale,
                           int64_t regularized);

  /// Improves `x` in place until zero lies within 1e-10 (float64) or 1e-7 (float32) of every row's
  /// subdifferential, entry by entry, relative to the largest entry of B and of the 1-norm's weight. A row is
  /// never worse than it was; entries that the regulariser sets to zero or to a bound are exactly there.
  /// `ridge` (m, 1), where defined, adds ridge_i/2 |x_i|^2 over the regularised columns of row i; x is then
  /// found as closely as rounding allows, whatever it was, since a ridge is searched for by what |x_i|
  /// becomes.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear,
                 const at::Tensor& ridge = {}) const;

 private:
  class Rows;

  at::Tensor hessian_;  // float64, with the regulariser's squared norm
  std::vector<double> diagonal_;
  WeightRegularizer regularizer_;
  double l1_ = 0, l2_ = 0;  // times scale
  int64_t regularized_ = 0;
};

/// The sum of a regulariser over the entries of `values`, in float64; infinite outside its bounds.
double regularizer_value(const Regularizer& regularizer, const at::Tensor& values);

/// The same for every row, (m, 1).
at::Tensor row_regularizer(const Regularizer& regularizer, const at::Tensor& values);

/// The bounds in the precision of a type: projecting onto [0, 0.1] gives the float32 next to 0.1.
Regularizer with_bounds_of(const Regularizer& regularizer, at::ScalarType type);

/// What the entries of each of `columns` columns must lie between, in the precision of a type.
struct ColumnBounds {
  std::vector<double> low, high;

  bool any() const;
  /// One of them as a tensor (1, columns), float64.
  at::Tensor on(const at::Device& device, const std::vector<double>& ends) const;
};
ColumnBounds column_bounds(const WeightRegularizer& regularizer, int64_t columns, at::ScalarType type);

}  // namespace torchbcd
