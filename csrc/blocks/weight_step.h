// The W block of Wang et al.: by eq. (1), the minimiser, or by eq. (3), one proximal gradient step from an
// extrapolated point, its step size found from the direction. DLAM, mDLAM and dlADMM share the latter.
//
// With D = W' - Wbar (and the bias's part as one more column) the condition (2) on theta,
// P(W'; theta) >= phi(a, W', z), reads theta |D|^2 >= rho |a D^T|^2: it depends on the direction of D alone.
// Where Omega is nothing or a squared norm, D = -(G + mu Wbar) / (theta + mu) has a direction that theta does
// not change, so the smallest theta allowed is known in closed form, rho |a D^T|^2 / |D|^2. Any other Omega
// bends the direction: theta is tried, and raised to what the direction asks for.
#pragma once

#include "linalg/affine_map.h"
#include "linalg/reductions.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// Where a step went.
struct WeightStep {
  double theta = 0;        // of condition (2)
  double distance = 0;     // |W' - Wbar|^2, bias included
  double residual = 0;     // |q' - z|^2 with the new map, of the rows here
  double regularizer = 0;  // Omega(W')
  int64_t products = 0;    // matrix products spent
  int64_t trials = 0;      // of theta
};

/// Scratch matrices (n, d') of the step.
struct WeightStepBuffers {
  at::Tensor residual;  // on entry q_bar - z, with q_bar the map at Wbar
  at::Tensor product;
};

/// next = argmin over W of <grad phi(Wbar), W - Wbar> + theta/2 |W - Wbar|^2 + Omega(W), at the smallest
/// theta known to satisfy (2), where phi(W) = rho/2 |z - a W^T - 1 b^T|^2; q_out = a next^T. `theta_guess` is
/// tried first where theta has to be searched for. Where rows lie in several processes, the gradient is
/// summed over them, and for each theta the curvature.
WeightStep weight_step(const at::Tensor& a, const at::Tensor& z, const AffineMap& from, double rho,
                       const WeightRegularizer& omega, double theta_guess, const WeightStepBuffers& buffers,
                       const AffineMap& next, const at::Tensor& q_out, const Totals& totals);

/// next = argmin over W of phi(W) + Omega(W), eq. (1), found from the Gram matrix of [a 1] in float64;
/// `residual` is z - a W^T - 1 b^T at `previous`. It may have many minimisers. Where Omega is nothing or a
/// squared norm this is the one nearest to `previous`, singular values of [a 1] below 1e-6 of the largest
/// counting as zero; with any other Omega it is one of them. Errors begin with `where`. The Gram matrix and
/// the cross product are summed over the processes that have the rows, in one message.
void exact_weights(const at::Tensor& a, const at::Tensor& residual, const AffineMap& previous, double rho,
                   const WeightRegularizer& omega, const char* where, const AffineMap& next,
                   const SumOverRanks& sum_over_ranks);

}  // namespace torchbcd
