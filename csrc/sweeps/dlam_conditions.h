// Condition (2) of Wang et al. and its twin, from their definitions in float64: (P - phi) / (|P| + phi) of a
// step that DLAM has taken, with P the model that it minimised and phi = rho/2 |z - a W^T - 1 b^T|^2. At
// least 0, up to rounding, where the condition holds. Sums are over the rows of all processes.
#pragma once

#include "linalg/affine_map.h"
#include "linalg/reductions.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// Of a step in W and b with theta. The bias's steps have theta + mu for theta, mu the weight of a squared
/// norm.
double weight_slack(const at::Tensor& a, const at::Tensor& z, const AffineMap& from, const AffineMap& next,
                    double rho, double theta, const WeightRegularizer& regularizer, const Totals& totals);

/// Of a step in a with tau.
double state_slack(const at::Tensor& from, const at::Tensor& next, const at::Tensor& z, const AffineMap& map,
                   double rho, double tau, const Totals& totals);

}  // namespace torchbcd
