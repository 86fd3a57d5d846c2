// The block of the last layer's V where its regulariser is one's own (blocks/proximal_descent.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "kernels/output_loss.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// V <- a point no higher than it in weight sum_j w_j l(v_j; y_j) + curvature/2 |V - centre|^2 + s(V), where
/// zero is within 1e-10 (float64) or 1e-7 (float32) of the subdifferential, entry by entry, relative to the
/// largest entry of the smooth part's gradient at the start. w_j: (n, 1) or (1, 1). For losses with a
/// Lipschitz gradient. `where` begins errors: it throws as prox_of and value_of do.
void proximal_output_(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                      const OutputLoss& loss, const WeightRegularizer& s, double weight, double curvature,
                      const std::string& where, const at::Tensor& v);

}  // namespace torchbcd
