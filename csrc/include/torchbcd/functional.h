// The block updates as functions on tensors. Each is also an operator, torch.ops.torchbcd.<name>.
//
// Elementwise functions broadcast their tensor arguments, which must share one dtype (float32 or
// float64) and one device. They throw c10::TypeError or c10::ValueError, by name, for anything
// else.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "torchbcd/export.h"

namespace torchbcd {

/// argmin over u of 1/2 (relu(u) - a)^2 + gamma/2 (u - b)^2. Zeng et al., Lemma 9.
TORCHBCD_API at::Tensor prox_relu(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (u - a)^2 + gamma/2 (u - b)^2.
TORCHBCD_API at::Tensor prox_identity(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over v of 1/2 (v - y)^2 + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_squared_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// The W block: argmin over (W, c) of rho/2 |U - V W^T - 1 c^T|^2 + alpha/2 |[W c] - [weight
/// bias]|^2.
///
/// u is (n, d'), v (n, d), weight (d', d) and bias (d',) or absent; n may be 0. Returns the new
/// weight and bias, the bias an empty tensor where none was given.
TORCHBCD_API std::tuple<at::Tensor, at::Tensor> weight_update(const at::Tensor& u, const at::Tensor& v,
                                                              const at::Tensor& weight,
                                                              const std::optional<at::Tensor>& bias,
                                                              double rho, double alpha);

/// The V block of a hidden layer: argmin over V of gamma/2 |V - S|^2 + rho/2 |U - V W^T - 1 b^T|^2.
///
/// s is (n, d), u (n, d'), weight (d', d) and bias (d',) or absent; n may be 0.
TORCHBCD_API at::Tensor state_update(const at::Tensor& s, const at::Tensor& u, const at::Tensor& weight,
                                     const std::optional<at::Tensor>& bias, double gamma, double rho);

}  // namespace torchbcd
