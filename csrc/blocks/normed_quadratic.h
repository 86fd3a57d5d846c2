// Quadratics with one Hessian for all rows plus a WeightRegularizer that has norms, of columns or of rows.
//
// A column x of X (an input) meets the same curvature h in every row, so that its minimiser has a closed
// form: the gradient step, shrunk by weight/h, to exact zeros (Yuan and Lin, 2006). Coordinate descent goes
// through the columns; where nothing but norms has kinks, Newton steps on the columns that are not zero
// follow. Their system, H + Lambda less a rank-one matrix for each column, with Lambda = diag(weight/|x|),
// couples all rows: it is solved through the inverse of the (d, d) matrix H + Lambda and a second system of
// that size (Woodbury).
//
// A row w (a unit) is zero, or (S + mu I) w = g for one number mu >= 0, S the Hessian with the bias
// eliminated: mu is weight/|w|, or more where |w| would exceed the radius. That is the secular equation of
// trust regions (More and Sorensen, 1983) on the eigenvalues of S, solved for all rows at once by Newton's
// method on 1/|w(mu)|, which is concave. With a 1-norm or bounds beside the norm, w(mu) is a
// QuadraticPlusRegularizer's, and mu is found by secants within a bracket.
//
// Rows whose 1-norms have to be within a radius take accelerated gradient steps, each followed by the exact
// nearest row within (Duchi et al., 2008), which find the entries that are zero; and Newton steps of the
// others, on the face of the ball that they are on, which find their values.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "blocks/regularized_quadratic.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// What both have: 1/2 <(X - C) H, X - C> - <B, X - C> + scale r(X'), with X' the first `regularized` columns
/// of X; one more is the bias. In float64.
struct NormedQuadratic {
  at::Tensor hessian;  // with the regulariser's squared norm
  WeightRegularizer regularizer;
  double scale = 1;
  int64_t regularized = 0;
  at::Tensor border;   // (d,): what the bias shares with W; undefined without one
  double of_bias = 1;  // its own curvature

  NormedQuadratic(const at::Tensor& plain_hessian, const WeightRegularizer& r, double times, int64_t columns);

  at::Tensor covered(const at::Tensor& t) const { return t.narrow(1, 0, regularized); }
  bool has_bias() const { return border.defined(); }
  /// B in float64, less what the squared norm, which H has, does about C rather than zero.
  at::Tensor shifted(const at::Tensor& centre, const at::Tensor& linear) const;

  /// S, of W alone once the bias is eliminated; and of right-hand sides for [w b], those for w.
  at::Tensor of_weight() const;
  at::Tensor without_bias(const at::Tensor& of_all) const;
  /// The bias that is best with W, (m,), of right-hand sides for [w b].
  at::Tensor best_bias(const at::Tensor& of_all, const at::Tensor& w) const;
};

/// With norms of columns.
class ColumnNorms {
 public:
  explicit ColumnNorms(NormedQuadratic problem) : problem_(std::move(problem)) {}

  /// As WeightQuadratic's; X is no worse than it was.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  class Descent;
  NormedQuadratic problem_;
};

/// The objective of each row up to a constant, (m, 1), in float64; `linear` is shifted.
at::Tensor row_values(const NormedQuadratic& problem, const at::Tensor& x, const at::Tensor& centre,
                      const at::Tensor& linear);

/// With norms of rows.
class RowNorms {
 public:
  RowNorms(NormedQuadratic problem, QuadraticPlusRegularizer without_norms);

  /// As WeightQuadratic's; no row is worse than it was.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  at::Tensor solved(const at::Tensor& of_all, const at::Tensor& mu) const;
  at::Tensor smooth(const at::Tensor& centre, const at::Tensor& linear) const;
  at::Tensor bracketed(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

  NormedQuadratic problem_;
  QuadraticPlusRegularizer without_norms_;
  double weight_;           // of the norm, times scale
  at::Tensor eigenvalues_;  // (d,), of S
  at::Tensor vectors_;
};

/// With 1-norms of rows that have to be within a radius.
class RowSums {
 public:
  explicit RowSums(NormedQuadratic problem);

  /// As RowNorms'.
  void minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const;

 private:
  class Rows;

  NormedQuadratic problem_;
  at::Tensor system_;  // S
  double largest_;     // its largest eigenvalue
  double l1_;          // times scale
  double radius_;
};

}  // namespace torchbcd
