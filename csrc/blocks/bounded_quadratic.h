// Small quadratic problems with bounds, many at once.
#pragma once

#include <ATen/core/Tensor.h>

namespace torchbcd {

/// argmin over l in [low, high] of 1/2 l^T G l + h^T l, for many problems: `g` (m, k, k) symmetric positive
/// semidefinite, the others (m, k), float64. Passes of coordinate descent, each with a Newton step on the
/// entries that are not at their bounds.
at::Tensor bounded_quadratic(const at::Tensor& g, const at::Tensor& h, const at::Tensor& low,
                             const at::Tensor& high);

}  // namespace torchbcd
