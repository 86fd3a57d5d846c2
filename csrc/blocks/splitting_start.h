// Another start for a block with an activation inside: u = X M^T + O split off.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include "functors/activations.h"

namespace torchbcd {

/// Where ten steps of the alternating direction method of multipliers lead from X for
/// kappa/2 |X - C|^2 + gamma/2 |T - sigma(X M^T + O)|^2 + ..., with the penalty ratio gamma/2 |u - X M^T -
/// O|^2 and the global minimiser of every entry of u: not a descent, but over the ridges between basins.
/// `offset` O broadcasts to (m, p), or is undefined; `ridge` is kappa / (ratio gamma); `solve` applies to
/// rows the inverse of the Hessian in X of all but sigma, over ratio gamma.
at::Tensor splitting_start(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                           const at::Tensor& m, const at::Tensor& offset,
                           const functors::AnyActivation& activation, double ratio, double ridge,
                           c10::function_ref<at::Tensor(const at::Tensor&)> solve);

/// X M^T + O
at::Tensor product_of(const at::Tensor& x, const at::Tensor& m, const at::Tensor& offset);

}  // namespace torchbcd
