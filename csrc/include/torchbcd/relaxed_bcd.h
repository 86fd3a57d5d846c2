// Relaxed block coordinate descent: the optimizer to train with.
#pragma once

#include <torch/arg.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Options of RelaxedBCD; docs/relaxed.md says what they do.
struct RelaxedBCDOptions {
  /// "squared", "hinge", "logistic", "exponential" or "cross_entropy".
  TORCH_ARG(std::string, loss) = "squared";
  /// Of the weights, in [0, 2). One value is for the hidden layers, whose last has output_relaxation.
  TORCH_ARG(PerLayer<double>, relaxation) = 0.3;
  TORCH_ARG(double, output_relaxation) = 0.05;
  /// How many times a hidden layer's relaxation is that of the next one, >= 1, where relaxation is one value:
  /// that of the last hidden layer. None becomes larger than 1.5 by it.
  TORCH_ARG(double, growth) = 1.0;
  /// Of the states that a layer reads, in (0, 2).
  TORCH_ARG(PerLayer<double>, over_relaxation) = 1.9;
  /// Proximal weight of W and b relative to the mean square of the layer's inputs, > 0.
  TORCH_ARG(PerLayer<double>, damping) = 0.1;
  /// Ratio of neighbouring layers' penalties, > 0.
  TORCH_ARG(PerLayer<double>, penalty_ratio) = 0.01;
  /// Conjugate gradient steps of the states, >= 1.
  TORCH_ARG(PerLayer<int64_t>, state_steps) = 1;
  /// > 1: W as the average of ridge regressions on so many blocks of rows, and one length for the steps of
  /// the states that the layer reads. Cheaper, not exact, not certified.
  TORCH_ARG(PerLayer<int64_t>, row_blocks) = 1;
  /// The most that a batch's states move, relative to their norm, > 0. Not given: no cap.
  TORCH_ARG(PerLayer<std::optional<double>>, cap) = std::nullopt;
  /// The part of its last step that a layer's W and b go on before a sweep, in [0, 1).
  TORCH_ARG(PerLayer<double>, momentum) = 0.0;
  /// The part of a layer's W, times lr, that is taken off before a sweep, in [0, 1).
  TORCH_ARG(PerLayer<double>, weight_decay) = 0.0;
  TORCH_ARG(PerLayer<Regularizer>, weight_regularizer) = Regularizer();
  /// A factor of every relaxation and decay, for schedules.
  TORCH_ARG(double, lr) = 1.0;
  /// Keep the batch's true loss from rising: halve the step until it does not.
  TORCH_ARG(bool, guard) = false;
  /// Keep U, V and the penalties of bound data from sweep to sweep.
  TORCH_ARG(bool, persistent) = false;
  /// rho_N of losses other than "squared", > 0.
  TORCH_ARG(double, output_penalty) = 1.0;
  TORCH_ARG(double, loss_weight) = 1.0;
  TORCH_ARG(bool, mean_loss) = false;

 public:
  /// One setting for nets of 2 to 20 layers, whatever their initialisation.
  static RelaxedBCDOptions for_any_depth() {
    return RelaxedBCDOptions().relaxation(0.5).output_relaxation(0.5).penalty_ratio(0.03).state_steps(2).cap(
        0.15);
  }
};

/// Trains an MLP by certified relaxed block coordinate descent, one mini-batch a step: torchbcd.RelaxedBCD
/// for C++ programs. No block of a step raises the batch's lifted objective.
class TORCHBCD_API RelaxedBCD : public SplitOptimizer {
 public:
  explicit RelaxedBCD(const torch::nn::Sequential& model, const RelaxedBCDOptions& options = {});
  explicit RelaxedBCD(Mlp mlp, const RelaxedBCDOptions& options = {});

  /// What each layer carries; may be changed between steps.
  struct Layer {
    double lr;
    double relaxation;
    double over_relaxation;
    double damping;
    double penalty_ratio;
    int64_t state_steps;
    int64_t row_blocks;
    std::optional<double> cap;
    double momentum;
    double weight_decay;
    Regularizer weight_regularizer;
  };
  std::span<Layer> layers() { return layers_; }
  /// Sets every layer's lr.
  void set_lr(double lr);

  /// Keeps a full batch for step(). Arguments as for BCD.
  void bind(const at::Tensor& x, const at::Tensor& y);
  /// A sweep over the bound data. The report is valid until the next one.
  const RelaxedReport& step();
  /// A sweep over a mini-batch.
  const RelaxedReport& step(const at::Tensor& x, const at::Tensor& y);

  /// The last sweep's report.
  const RelaxedReport& report() const;

  /// L at the variables of the last sweep, computed from them alone.
  double objective();

 private:
  std::vector<detail::NamedOption> layer_options(size_t layer) override;
  std::vector<detail::NamedOption> scheme_options() override;
  void apply_options() override;

  std::vector<Layer> layers_;
  bool guard_;
  bool persistent_;
  double output_penalty_;
};

}  // namespace torchbcd
