// The Cholesky factors of small matrices and their inverses, in one pass and without LAPACK's overhead.
#pragma once

#include <ATen/core/Tensor.h>

namespace torchbcd::cpu {

/// For each K = L L^T, whose lower triangle is in `k` (batch, d, d): inverse <- L^{-1}, (batch, d, d), and
/// pivots <- L_jj^2, (batch, d). All float32 or all float64, on the CPU; the rows of `k`, `inverse` and
/// `pivots` are contiguous. A pivot that is not positive leaves it, or NaN, in `pivots`.
void small_cholesky(const at::Tensor& k, const at::Tensor& inverse, const at::Tensor& pivots);

}  // namespace torchbcd::cpu
