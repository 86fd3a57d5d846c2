// The block updates as functions on tensors. Each is also an operator, torch.ops.torchbcd.<name>.
//
// Elementwise functions broadcast their tensor arguments, which must share one dtype (float32 or
// float64) and one device. They throw c10::TypeError or c10::ValueError, by name, for anything
// else.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "torchbcd/export.h"

namespace torchbcd {

/// argmin over u of 1/2 (relu(u) - a)^2 + gamma/2 (u - b)^2. Zeng et al., Lemma 9.
TORCHBCD_API at::Tensor prox_relu(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (u - a)^2 + gamma/2 (u - b)^2.
TORCHBCD_API at::Tensor prox_identity(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (sigmoid(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser.
TORCHBCD_API at::Tensor prox_sigmoid(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (tanh(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser.
TORCHBCD_API at::Tensor prox_tanh(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (l(u) - a)^2 + gamma/2 (u - b)^2, l(u) = max(u, 0) + negative_slope min(u, 0).
TORCHBCD_API at::Tensor prox_leaky_relu(const at::Tensor& a, const at::Tensor& b, double gamma,
                                        double negative_slope = 0.01);

/// argmin over u of 1/2 (clip(u, min_val, max_val) - a)^2 + gamma/2 (u - b)^2, the global minimiser.
TORCHBCD_API at::Tensor prox_hardtanh(const at::Tensor& a, const at::Tensor& b, double gamma,
                                      double min_val = -1, double max_val = 1);

/// argmin over u of 1/2 (clip(u/6 + 1/2, 0, 1) - a)^2 + gamma/2 (u - b)^2, the global minimiser.
TORCHBCD_API at::Tensor prox_hardsigmoid(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (sign(u) - a)^2 + gamma/2 (u - b)^2, with sign(0) = 1; the largest negative normal
/// number where "just below zero" is best.
TORCHBCD_API at::Tensor prox_sign(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (silu(u) - a)^2 + gamma/2 (u - b)^2, silu(u) = u / (1 + exp(-u)), the global
/// minimiser.
TORCHBCD_API at::Tensor prox_silu(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (gelu(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; gelu(u) = u Phi(u)
/// with Phi the distribution function of a standard normal variable.
TORCHBCD_API at::Tensor prox_gelu(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (g(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; g(u) = u (1 +
/// tanh(sqrt(2/pi) (u + 0.044715 u^3)))/2.
TORCHBCD_API at::Tensor prox_gelu_tanh(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (mish(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; mish(u) = u tanh(log(1
/// + exp(u))).
TORCHBCD_API at::Tensor prox_mish(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (h(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; h(u) = u clip(u + 3, 0,
/// 6)/6.
TORCHBCD_API at::Tensor prox_hardswish(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = -log(1 + exp(-u)).
TORCHBCD_API at::Tensor prox_logsigmoid(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = u/(1 + |u|).
TORCHBCD_API at::Tensor prox_softsign(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = u - tanh(u).
TORCHBCD_API at::Tensor prox_tanhshrink(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (sin(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser.
TORCHBCD_API at::Tensor prox_sine(const at::Tensor& a, const at::Tensor& b, double gamma);

/// argmin over u of 1/2 (e(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; e(u) = scale u for u > 0,
/// and scale alpha (exp(rate u) - 1) below.
TORCHBCD_API at::Tensor prox_elu(const at::Tensor& a, const at::Tensor& b, double gamma, double alpha = 1,
                                 double scale = 1, double rate = 1);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = log(1 + exp(beta
/// u))/beta, and u where beta u > threshold, which is at least 20.
TORCHBCD_API at::Tensor prox_softplus(const at::Tensor& a, const at::Tensor& b, double gamma, double beta = 1,
                                      double threshold = 20);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = u - lambd for u >
/// lambd, u + lambd for u < -lambd, 0 between; lambd > 0.
TORCHBCD_API at::Tensor prox_softshrink(const at::Tensor& a, const at::Tensor& b, double gamma,
                                        double lambd = 0.5);

/// argmin over u of 1/2 (s(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; s(u) = u for |u| > lambd,
/// 0 between; lambd > 0. The number next to lambd where "just beyond" it is best.
TORCHBCD_API at::Tensor prox_hardshrink(const at::Tensor& a, const at::Tensor& b, double gamma,
                                        double lambd = 0.5);

/// argmin over u of 1/2 (t(u) - a)^2 + gamma/2 (u - b)^2, the global minimiser; t(u) = u for u >
/// threshold, and value up to it.
TORCHBCD_API at::Tensor prox_threshold(const at::Tensor& a, const at::Tensor& b, double gamma,
                                       double threshold, double value);

/// argmin over u of 1/2 (p(u) - a)^2 + gamma/2 (u - b)^2, p(u) = sum_k coefficients[k] u^k, degree <= 8.
TORCHBCD_API at::Tensor prox_polynomial(const at::Tensor& a, const at::Tensor& b, double gamma,
                                        c10::ArrayRef<double> coefficients);

/// argmin over v of 1/2 (v - y)^2 + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_squared_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of max(0, 1 - y v) + gamma/2 (v - b)^2. Zeng et al., Lemma 10.
TORCHBCD_API at::Tensor prox_hinge_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of log(1 + exp(-y v)) + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_logistic_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of exp(-y v) + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_exponential_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of h(v - y) + gamma/2 (v - b)^2, h(d) = d^2/2 for |d| <= 1 and |d| - 1/2 beyond.
TORCHBCD_API at::Tensor prox_huber_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of log(1 + exp(v)) - y v + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_binary_cross_entropy_loss(const at::Tensor& y, const at::Tensor& b,
                                                       double gamma);

/// argmin over v of exp(v) - y v + gamma/2 (v - b)^2.
TORCHBCD_API at::Tensor prox_poisson_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over v of max(tau (y - v), (tau - 1) (y - v)) + gamma/2 (v - b)^2, 0 < tau < 1.
TORCHBCD_API at::Tensor prox_quantile_loss(const at::Tensor& y, const at::Tensor& b, double gamma,
                                           double tau = 0.5);

/// argmin over v of -sum_c t_c log softmax(v)_c + gamma/2 |v - b|^2 for every row of b, (n, C). target: class
/// indices (n,) or probabilities t (n, C).
TORCHBCD_API at::Tensor prox_cross_entropy_loss(const at::Tensor& target, const at::Tensor& b, double gamma);

/// argmin over v of max(0, 1 - y'v) + gamma/2 |v - b|^2 for every row of y and b, (n, C). Zeng et al., proof
/// of Theorem 1, (a3).
TORCHBCD_API at::Tensor prox_row_hinge_loss(const at::Tensor& y, const at::Tensor& b, double gamma);

/// argmin over u of t |u| + 1/2 (u - x)^2: soft thresholding.
TORCHBCD_API at::Tensor prox_l1(const at::Tensor& x, double t);

/// argmin over u of t/2 u^2 + 1/2 (u - x)^2.
TORCHBCD_API at::Tensor prox_l2(const at::Tensor& x, double t);

/// argmin over u of t1 |u| + t2/2 u^2 + 1/2 (u - x)^2.
TORCHBCD_API at::Tensor prox_elastic_net(const at::Tensor& x, double t1, double t2);

/// max(x, 0)
TORCHBCD_API at::Tensor project_nonnegative(const at::Tensor& x);

/// min(max(x, lo), hi)
TORCHBCD_API at::Tensor project_box(const at::Tensor& x, double lo, double hi);

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

/// The z block of DLAM: the point of {z : |a - sigma(z)| <= eps} next to q, where `z`, which belongs to it in
/// exact arithmetic, counts as a member. activation: "relu", "leaky_relu" (parameters: its slope), "sigmoid",
/// "tanh", "hardtanh" (parameters: its bounds), "hardsigmoid", "identity", "elu", "softplus", "logsigmoid",
/// "softsign", "tanhshrink", "softshrink" or a "polynomial" that never falls, with the parameters of their
/// proxes. All tensors of one shape. Wang et al., eq. 4.
TORCHBCD_API at::Tensor preimage_projection(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                                            std::string_view activation, c10::ArrayRef<double> parameters,
                                            double eps);

/// argmin over (z, a) of ratio/2 (z - q)^2 + 1/2 (a - v)^2 subject to |a - sigma(z)| <= eps, entry by entry.
TORCHBCD_API std::tuple<at::Tensor, at::Tensor> joint_state_update(const at::Tensor& q, const at::Tensor& v,
                                                                   std::string_view activation,
                                                                   c10::ArrayRef<double> parameters,
                                                                   double ratio, double eps);

}  // namespace torchbcd
