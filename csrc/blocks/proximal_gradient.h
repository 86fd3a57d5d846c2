// Accelerated proximal gradient for the output's loss.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/output_loss.h"

namespace torchbcd {

/// z_L as Wang et al. solve eq. (5); the library's own prox is exact and faster: this is there to compare
/// with. out = argmin over z of weight sum_rows w_row l(z; y) + rho/2 |z - q|^2 by FISTA (Beck & Teboulle,
/// 2009), started from the better of `z` and `q` in each row, and no worse than `z` in any; each part of a
/// loss by itself. For losses with a Lipschitz gradient.
void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const OutputLoss& loss, double weight, double rho, const at::Tensor& out);

/// Whether fista_output takes a loss.
bool has_lipschitz_gradient(const OutputLoss& loss);

}  // namespace torchbcd
