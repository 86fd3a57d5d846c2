// Symmetric positive definite systems: Gram matrices by one triangle, a blocked Cholesky factor, solves
// against many rows, a largest eigenvalue. Everything heavy is a matrix product, on whatever device the data
// is.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "linalg/reductions.h"

namespace torchbcd {

/// A Cholesky factorisation K = L L^T, blocked, with the inverses of L's diagonal blocks kept so
/// that solves are matrix products as well.
class SpdFactor {
 public:
  SpdFactor() = default;

  /// Factors the matrix whose lower triangle is in `k`, overwriting it.
  explicit SpdFactor(at::Tensor k);

  bool defined() const { return lower_.defined(); }

  /// The least of the pivots, each relative to its diagonal entry; NaN where there is no factor. Reads one
  /// number from the device, once.
  double least_pivot() const;
  /// Whether every pivot is positive and well above the rounding error of its diagonal entry.
  bool reliable() const;

  /// rows <- rows K^{-1} for `rows` (m, d), in the factor's precision whatever that of `rows`.
  void solve_(const at::Tensor& rows) const;

 private:
  at::Tensor lower_;            // (d, d): L below its diagonal blocks
  at::Tensor block_inverses_;   // (blocks, size, size): L_kk^{-1}, the last one perhaps smaller
  at::Tensor relative_pivots_;  // (d,): L_jj^2 / K_jj
  mutable std::optional<double> least_pivot_;
};

class GramSum;

/// What a regularised Gram matrix is made of: A^T A + ridge I, where A is `a` (n, d) with a column of ones
/// appended (ones_column; its own ridge is ones_ridge where that is not negative), or with a row of
/// sqrt(ones_row) appended. `ones`, where defined, stands for the ones: (n, 1), or, for the row, (d, 1).
struct GramSystem {
  at::Tensor a;
  double ridge = 0;
  bool ones_column = false;
  double ones_ridge = -1;
  double ones_row = 0;
  SumOverRanks sum_over_ranks = {};  // where the rows of A lie in several processes
  at::Tensor ones = {};
  GramSum* begun = nullptr;  // the sum over them, where it has been begun; in the precision of `a`
  /// The same sum, for who comes again with the same rows: read where it is defined, otherwise set.
  at::Tensor* kept = nullptr;

  int64_t size() const { return a.size(1) + (ones_column ? 1 : 0); }
};

/// A^T A of a system over all processes, without a ridge: on its way from construction on.
class GramSum {
 public:
  GramSum(const GramSystem& system, at::ScalarType dtype);
  /// Its lower triangle, once.
  at::Tensor wait();

 private:
  at::Tensor k_;
  at::Tensor places_, sums_;  // the triangle's entries, where they are summed
  PendingSum pending_;
};

/// The matrix itself, both triangles, in the precision of its data.
at::Tensor gram_matrix(const GramSystem& system);

/// Factors the system in the precision of its data; where that leaves no reliable pivot, in
/// float64. Throws c10::LinAlgError, quoting `where`, when no factor exists in float64 either.
SpdFactor factor(const GramSystem& system, const char* where);

/// z <- K^{-1} r for every block of `block` rows, the last one perhaps smaller, with K = A A^T + ones 1 1^T +
/// ridge I of the block's rows of `a` (n, d); r and z (n, m), all contiguous and of one type. As reliable as
/// `factor`, and throws as it does. Small blocks are batched.
void solve_row_blocks(const at::Tensor& a, int64_t block, double ridge, double ones, const at::Tensor& r,
                      const at::Tensor& z, const char* where);

/// The largest eigenvalue of W^T W from below, by its Rayleigh quotient: what a direction of steepest
/// curvature asks of a step.
double spectral_norm_squared(const at::Tensor& weight);

namespace cpu {
/// For each K = L L^T, whose lower triangle is in `k` (batch, d, d): inverse <- L^{-1}, (batch, d, d), and
/// pivots <- L_jj^2, (batch, d). All float32 or all float64, on the CPU; the rows of `k`, `inverse` and
/// `pivots` are contiguous. A pivot that is not positive leaves it, or NaN, in `pivots`. For small d.
void small_cholesky(const at::Tensor& k, const at::Tensor& inverse, const at::Tensor& pivots);
}  // namespace cpu

/// For each row i the solution X_i (k, c) of H[index_i, index_i] X_i = B_i, where an entry that is not `used`
/// stands for a row and a column of the identity; `ridge` (m, k), where defined, is added to the diagonals. H
/// (d, d) is symmetric, index and used are (m, k), B is (m, k, c). In as many rows at once as fit.
at::Tensor solve_on_entries(const at::Tensor& hessian, const at::Tensor& index, const at::Tensor& used,
                            const at::Tensor& b, const at::Tensor& ridge = {});

}  // namespace torchbcd
