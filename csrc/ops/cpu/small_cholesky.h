// The Cholesky factor of a small matrix and its inverse, in one pass and without LAPACK's overhead.
#pragma once

#include <ATen/core/Tensor.h>

namespace torchbcd::cpu {

/// For K = L L^T, whose lower triangle is in `k` (d, d): inverse <- L^{-1}, (d, d), and pivots <- L_jj^2,
/// (d,). All float32 or all float64, on the CPU; the rows of `k` and `inverse` are contiguous.
/// A pivot that is not positive leaves it, or NaN, in `pivots`.
void small_cholesky(const at::Tensor& k, const at::Tensor& inverse, const at::Tensor& pivots);

}  // namespace torchbcd::cpu
