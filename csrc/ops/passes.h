// The fused elementwise passes of a sweep. They write into tensors the caller owns and allocate
// nothing, so that a sweep over n rows costs no (n, d) allocation.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "functors/losses.h"

namespace torchbcd::passes {

/// out = sigma(u)
void activation(const at::Tensor& u, const functors::Activation& activation, const at::Tensor& out);

/// out = l(v; y), elementwise
void loss(const at::Tensor& y, const at::Tensor& v, const functors::Loss& loss, const at::Tensor& out);

/// u_out = argmin over x of gamma/2 (v - sigma(x))^2 + rho/2 (x - p)^2 + alpha/2 (x - u)^2 and
/// residual_out = u_out - p, where p = u - residual.
void auxiliary_update(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                      const functors::Activation& activation, double gamma, double rho, double alpha,
                      const at::Tensor& u_out, const at::Tensor& residual_out);

/// v_out = argmin over x of weight l(x; y) + gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2.
void output_update(const at::Tensor& y, const at::Tensor& v, const at::Tensor& u, const functors::Loss& loss,
                   const functors::Activation& activation, double weight, double gamma, double alpha,
                   const at::Tensor& v_out);

}  // namespace torchbcd::passes
