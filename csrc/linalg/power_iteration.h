// The largest eigenvalue of a symmetric positive semidefinite operator, from below.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace torchbcd {

struct PowerIteration {
  at::Tensor vector;  // of length one, or zero where the operator has sent it there
  double norm = 0;    // of its image before it was scaled
};

/// v <- A v / |A v| so many times, from `start`.
PowerIteration power_iteration(const std::function<at::Tensor(const at::Tensor&)>& apply, at::Tensor start,
                               int steps);

/// Of a symmetric positive semidefinite matrix.
double largest_eigenvalue(const at::Tensor& matrix);

/// The largest eigenvalue of W^T W, by its Rayleigh quotient: what a direction of steepest curvature asks of
/// a step.
double spectral_norm_squared(const at::Tensor& weight);

}  // namespace torchbcd
