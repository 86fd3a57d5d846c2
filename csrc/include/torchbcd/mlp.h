// An MLP as the optimizers see it, read from a torch::nn::Sequential or put together by hand.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/pimpl.h>

#include <functional>
#include <string>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/normalization.h"
#include "torchbcd/skip.h"

namespace torchbcd {

/// An activation by name: "identity", "relu", "leaky_relu" (parameter: its negative slope, default 0.01),
/// "prelu" (whose slope is the model's own), "hardtanh" (parameters: its bounds, default -1 and 1),
/// "polynomial" (parameters: its coefficients, the constant one first), and more without parameters; an
/// unknown one is answered with all there are.
struct TORCHBCD_API Activation {
  std::string name = "identity";
  std::vector<double> parameters;
  /// Of torch's Dropout behind it, in train mode: the probability with which a state is zero for a sweep, the
  /// others being divided by what is left of one.
  double dropout = 0;
  Normalization normalization = {};

  /// Of a text such as "relu", "leaky_relu(0.2)", "polynomial(0, 0.5, 0.25)", "relu, dropout(0.1)",
  /// "layer_norm(1e-05), relu" or "relu, layer_norm(1e-05)".
  static Activation parse(const std::string& text);
  std::string text() const;
};

/// The layers of [frozen modules,] [Flatten,] Linear, activation, ..., Linear[, activation], Residuals of
/// them, LayerNorms and Dropouts among these. The tensors are the model's own.
struct Mlp {
  std::vector<at::Tensor> weights;  // (d_l, d_{l-1})
  std::vector<at::Tensor> biases;   // (d_l,), undefined where a layer has none
  std::vector<Activation> activations;
  std::vector<Skip> skips = {};
  /// (d_l,) of the normalisations, and (1,) of activations "prelu", leaky ReLUs whose slope is trained:
  /// undefined where there is none; or none at all.
  std::vector<at::Tensor> scales = {}, shifts = {}, slopes = {};
  bool flatten = false;  // whether inputs are flattened first
  /// Whether parameters that require no gradients are frozen, as in a model; otherwise all are trained.
  bool can_be_frozen = false;
  /// What the modules before the layers make of inputs, a row for each row: they run as they are, in eval
  /// mode, and are not trained. Empty where there are none.
  std::function<at::Tensor(const at::Tensor&)> frozen_first = {};

  size_t depth() const { return weights.size(); }
  at::Tensor scale(size_t l) const { return scales.empty() ? at::Tensor() : scales[l]; }
  at::Tensor shift(size_t l) const { return shifts.empty() ? at::Tensor() : shifts[l]; }
  at::Tensor slope(size_t l) const { return slopes.empty() ? at::Tensor() : slopes[l]; }
};

/// Reads a Sequential of Flatten (first), Linear, activations of torch::nn and torchbcd::nn, LayerNorm before
/// or behind these, Dropout behind them, and torchbcd::nn::Residual; before them may stand any modules none
/// of whose parameters require gradients, such as a backbone. Throws a ValueError that names any other
/// module, and all that are supported, or one out of place.
TORCHBCD_API Mlp read_mlp(const torch::nn::Sequential& model);

namespace nn {

/// x + branch(x), of a branch of at least two Linear modules that ends with one.
class TORCHBCD_API ResidualImpl : public torch::nn::Module {
 public:
  explicit ResidualImpl(torch::nn::Sequential branch);
  at::Tensor forward(const at::Tensor& x);
  const torch::nn::Sequential& branch() const { return branch_; }

 private:
  torch::nn::Sequential branch_;
};
TORCH_MODULE(Residual);

/// u/6 + 1/2 between 0 and 1: Hardsigmoid of Python's torch.nn.
class TORCHBCD_API HardsigmoidImpl : public torch::nn::Module {
 public:
  at::Tensor forward(const at::Tensor& u);
};
TORCH_MODULE(Hardsigmoid);

/// u clip(u + 3, 0, 6)/6: Hardswish of Python's torch.nn.
class TORCHBCD_API HardswishImpl : public torch::nn::Module {
 public:
  at::Tensor forward(const at::Tensor& u);
};
TORCH_MODULE(Hardswish);

/// sin(u)
class TORCHBCD_API SineImpl : public torch::nn::Module {
 public:
  at::Tensor forward(const at::Tensor& u);
};
TORCH_MODULE(Sine);

/// -1 below zero, 1 from zero on.
class TORCHBCD_API SignImpl : public torch::nn::Module {
 public:
  at::Tensor forward(const at::Tensor& u);
};
TORCH_MODULE(Sign);

/// p(u) = sum_k coefficients[k] u^k, of degree at most 8, as an activation.
class TORCHBCD_API PolynomialImpl : public torch::nn::Module {
 public:
  explicit PolynomialImpl(std::vector<double> coefficients);
  at::Tensor forward(const at::Tensor& u);
  const std::vector<double>& coefficients() const { return coefficients_; }

 private:
  std::vector<double> coefficients_;
};
TORCH_MODULE(Polynomial);

}  // namespace nn
}  // namespace torchbcd
