// The fused elementwise passes of a sweep. They write into tensors the caller owns and allocate nothing of
// the data's size, so that a sweep over n rows costs no (n, d) allocation.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "functors/losses.h"
#include "functors/regularizers.h"

namespace torchbcd::passes {

/// out = sigma(u)
void activation(const at::Tensor& u, const functors::Activation& activation, const at::Tensor& out);

/// out = sigma'(u), one of the derivatives where there are several
void activation_derivative(const at::Tensor& u, const functors::Activation& activation,
                           const at::Tensor& out);

/// out = argmin over u of 1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2; out may be a or b
void prox_activation(const at::Tensor& a, const at::Tensor& b, const functors::Activation& activation,
                     double gamma, const at::Tensor& out);

/// out = argmin over u of t r(u) + 1/2 (u - x)^2, entry by entry; out may be x
void prox_regularizer(const at::Tensor& x, const functors::Regularizer& regularizer, double t,
                      const at::Tensor& out);

/// u_out = argmin over x of gamma/2 (v - sigma(x))^2 + rho/2 (x - p)^2 + alpha/2 (x - u)^2 and
/// residual_out = u_out - p, where p = u - residual.
void auxiliary_update(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                      const functors::Activation& activation, double gamma, double rho, double alpha,
                      const at::Tensor& u_out, const at::Tensor& residual_out);

/// out = argmin over x of gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2: the centre that the two proximal
/// terms of the output layer's V have in common.
void output_centre(const at::Tensor& v, const at::Tensor& u, const functors::Activation& activation,
                   double gamma, double alpha, const at::Tensor& out);

/// out = argmin over x of weight sum_j w_j l(x_j; y_j) + curvature/2 |x - centre|^2 + s(x), where
/// `row_weight` holds the w_j, (n, 1) or (1, 1). out may be centre.
void loss_update(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                 const functors::Loss& loss, const functors::Regularizer& regularizer, double weight,
                 double curvature, const at::Tensor& out);

/// l(v_j; y_j) of every row, summed over the row's entries: shape (n, 1), newly allocated.
at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const functors::Loss& loss);

}  // namespace torchbcd::passes
