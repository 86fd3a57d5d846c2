// dlADMM, the method that Wang et al. compare DLAM with.
#pragma once

#include <torch/arg.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Options of DLADMM.
struct DLADMMOptions {
  /// "squared", "hinge", "logistic", "exponential" or "cross_entropy".
  TORCH_ARG(std::string, loss) = "cross_entropy";
  /// Penalty of the last layer's constraint, > 0.
  TORCH_ARG(double, rho) = 1e-3;
  /// Penalty of the hidden layers, > 0. Not given: as rho.
  TORCH_ARG(std::optional<double>, nu) = std::nullopt;
  TORCH_ARG(PerLayer<Regularizer>, weight_regularizer) = Regularizer();
  TORCH_ARG(double, loss_weight) = 1.0;
  TORCH_ARG(bool, mean_loss) = false;
};

/// Trains an MLP by dlADMM: torchbcd.DLADMM for C++ programs. Its objective is not monotone.
class TORCHBCD_API DLADMM : public SplitOptimizer {
 public:
  explicit DLADMM(const torch::nn::Sequential& model, const DLADMMOptions& options = {});
  explicit DLADMM(Mlp mlp, const DLADMMOptions& options = {});

  /// What each layer carries; may be changed between steps.
  struct Layer {
    double penalty;
    Regularizer weight_regularizer;
  };
  std::span<Layer> layers() { return layers_; }

  /// Keeps a full batch, sets z and a by a forward pass and the multiplier to zero. Arguments as for BCD.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// A sweep over the bound data. The report is valid until the next one.
  const DladmmReport& step();
  /// The augmented Lagrangian, accumulated in float64.
  double objective();

 private:
  std::vector<detail::NamedOption> layer_options(size_t layer) override;
  void apply_options() override;

  std::vector<Layer> layers_;
};

}  // namespace torchbcd
