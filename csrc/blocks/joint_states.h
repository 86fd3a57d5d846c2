// All V of Algorithm 1 as one block, which is the V step of the method of auxiliary coordinates: nonlinear
// least squares in each row.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "functors/activations.h"
#include "linalg/affine_map.h"

namespace torchbcd {

/// Whether an activation has one derivative everywhere.
bool is_smooth(const functors::AnyActivation& activation);

/// min over (V_1, ..., V_N), row by row, of
///
///   weight/2 |V_N - Y|^2 + sum_i gamma_i/2 |V_i - sigma_i(V_{i-1} W_i^T + 1 b_i^T)|^2 + l2_i/2 |V_i|^2
///
/// for smooth activations; V_0 is data.
struct JointStates {
  const std::vector<functors::AnyActivation>& activations;
  const std::vector<AffineMap>& maps;
  std::vector<double> gamma, l2;

  /// Improves `states`, (n, d_i) each, in place; `product` is V_0 W_1^T + 1 b_1^T, and `weight` (n, 1). By
  /// Gauss-Newton steps, damped as Levenberg and Marquardt do it, each row with a damping of its own, until
  /// the gradient is rounding or no step lowers the row's objective. A step's system is block tridiagonal and
  /// differs from row to row; it is factored block by block, at O(sum d_i^3) a row. No row ends above where
  /// it was. In float64, whatever the states' type.
  void minimise_(const std::vector<at::Tensor>& states, const at::Tensor& product, const at::Tensor& y,
                 const at::Tensor& weight) const;
};

}  // namespace torchbcd
