// The operators' implementations: the checks of their arguments, and a call of a pass or a block. table.h
// says which operator each is; torchbcd/functional.h documents them.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "functors/activations.h"
#include "functors/losses.h"
#include "kernels/registry.h"

namespace torchbcd::operators {

using Tensor = at::Tensor;
using Pair = std::tuple<at::Tensor, at::Tensor>;
using Triple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// --- proximal operators (prox.cpp) ---

Tensor prox_of_activation(const char* name, c10::ArrayRef<double> parameters, const Tensor& a,
                          const Tensor& b, double gamma);
Tensor prox_of_loss(const char* name, const functors::AnyLoss& loss, const Tensor& y, const Tensor& b,
                    double gamma);

template <typename Activation, typename... Parameters>
Tensor prox_activation(const Tensor& a, const Tensor& b, double gamma, Parameters... parameters) {
  return prox_of_activation(Activation::name, std::initializer_list<double>{parameters...}, a, b, gamma);
}
template <typename Loss>
Tensor prox_loss(const Tensor& y, const Tensor& b, double gamma) {
  return prox_of_loss(Loss::name, Loss{}, y, b, gamma);
}
Tensor prox_quantile(const Tensor& y, const Tensor& b, double gamma, double tau);
Tensor prox_polynomial_of(const Tensor& a, const Tensor& b, double gamma, c10::ArrayRef<double> coefficients);
Tensor prox_cross_entropy(const Tensor& target, const Tensor& b, double gamma);
Tensor prox_row_hinge(const Tensor& y, const Tensor& b, double gamma);
Tensor prox_l1_of(const Tensor& x, double t);
Tensor prox_l2_of(const Tensor& x, double t);
Tensor prox_elastic_net_of(const Tensor& x, double t1, double t2);
Tensor project_nonnegative_of(const Tensor& x);
Tensor project_box_of(const Tensor& x, double lo, double hi);

// --- blocks (block_updates.cpp) ---

Pair update_weight(const Tensor& u, const Tensor& v, const Tensor& weight, const std::optional<Tensor>& bias,
                   double rho, double alpha);
Tensor update_state(const Tensor& s, const Tensor& u, const Tensor& weight, const std::optional<Tensor>& bias,
                    double gamma, double rho);
Tensor project_to_preimages(const Tensor& q, const Tensor& a, const Tensor& z, std::string_view activation,
                            c10::ArrayRef<double> parameters, double eps);
Pair update_joint_state(const Tensor& q, const Tensor& v, std::string_view activation,
                        c10::ArrayRef<double> parameters, double ratio, double eps);

// --- steps of optimizers (steps.cpp) ---

using TextList = std::vector<std::string>;

std::vector<Tensor> step_relaxed(const Tensor& x, const Tensor& y, at::TensorList parameters,
                                 at::TensorList velocity, const TextList& activations, std::string_view skips,
                                 std::string_view loss, std::string_view options);
std::vector<Tensor> sweep_of_bcd(const Tensor& x, const Tensor& y, at::TensorList parameters,
                                 at::TensorList u, at::TensorList v, const TextList& activations,
                                 std::string_view skips, std::string_view loss, std::string_view options);

// --- formulas that Python asks for by name (formulas.cpp) ---

/// out = sigma(u)
void activation_into(const Tensor& u, std::string_view activation, c10::ArrayRef<double> parameters,
                     Tensor& out);
/// The derivatives of sigma from the left and from the right; ValueError where it jumps.
Pair slopes_of_activation(const Tensor& u, std::string_view activation, c10::ArrayRef<double> parameters);
/// The loss of every row, (n, 1), for targets of the outputs' shape as encode_targets makes them.
Tensor losses_of_rows(const Tensor& y, const Tensor& v, std::string_view loss);
/// low, high and d of the subdifferential of the loss in v, {g + t d : low <= g <= high, 0 <= t <= 1} with
/// one t a row; v is rounded to `unit` of it.
Triple subdifferential_of_loss(const Tensor& y, const Tensor& v, std::string_view loss, double unit);
/// l1 |x| + l2/2 x^2 of every entry: the regulariser without its bounds.
Tensor penalty_of_regularizer(const Tensor& x, double l1, double l2, double low, double high);
/// The ends of the regulariser's subdifferential.
Pair subdifferential_of_regularizer(const Tensor& x, double l1, double l2, double low, double high);
/// Class indices, or targets of the outputs' shape and kind, as the passes of the loss take them.
Tensor targets_of_classes(const Tensor& y, const Tensor& outputs, std::string_view loss);

}  // namespace torchbcd::operators
