// DLAM and mDLAM of Wang et al., Algorithms 1 and 2.
#pragma once

#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// A tolerance that shrinks by a factor every sweep, down to a floor: max(start factor^k, floor). A number
/// stands for a constant one.
struct EpsSchedule {
  double start = 3.0;
  double factor = 0.93;
  double floor = 0.003;

  EpsSchedule() = default;
  EpsSchedule(double constant) : start(constant), factor(1), floor(constant) {}
  EpsSchedule(double start, double factor, double floor) : start(start), factor(factor), floor(floor) {}

  /// The tolerance of a sweep, counted from 0 since the data were bound.
  double operator()(int64_t sweep) const {
    return std::max(start * std::pow(factor, static_cast<double>(sweep)), floor);
  }
};

/// Options of DLAM; docs/dlam.md says what they do.
struct DLAMOptions {
  /// "squared", "hinge", "logistic", "exponential" or "cross_entropy".
  TORCH_ARG(std::string, loss) = "cross_entropy";
  /// Penalty of z_l = a_{l-1} W_l^T + 1 b_l^T, > 0.
  TORCH_ARG(PerLayer<double>, rho) = 1e-3;
  /// Tolerance of a_l = h_l(z_l), > 0 (>= 0 with joint): a number or a schedule. Not given: EpsSchedule(), or
  /// 0.003 with joint. **Without joint, a constant eps trains no hidden layer.**
  TORCH_ARG(std::optional<EpsSchedule>, eps) = std::nullopt;
  /// mDLAM (Algorithm 2) rather than DLAM (Algorithm 1).
  TORCH_ARG(bool, monotone) = true;
  TORCH_ARG(PerLayer<Regularizer>, weight_regularizer) = Regularizer();
  /// Minimise over (z_l, a_l) together, entry by entry and exactly.
  TORCH_ARG(bool, joint) = false;
  TORCH_ARG(Momentum, momentum) = Momentum::kNesterov;
  /// Not given: the linearised W step of eq. (3). > 0: eq. (1) itself, with this relative proximal weight.
  TORCH_ARG(std::optional<double>, weight_damping) = std::nullopt;
  TORCH_ARG(OutputSolver, output_solver) = OutputSolver::kProx;
  /// Measure condition (2) and its twin from their definitions, for the report's slacks.
  TORCH_ARG(bool, check_conditions) = false;
  TORCH_ARG(double, loss_weight) = 1.0;
  TORCH_ARG(bool, mean_loss) = false;
};

/// Trains an MLP by the (monotone) deep learning alternating minimization of Wang et al.: torchbcd.DLAM for
/// C++ programs. The last Linear has no activation.
class TORCHBCD_API DLAM : public SplitOptimizer {
 public:
  explicit DLAM(const torch::nn::Sequential& model, const DLAMOptions& options = {});
  explicit DLAM(Mlp mlp, const DLAMOptions& options = {});

  /// What each layer carries; may be changed between steps.
  struct Layer {
    double rho;
    Regularizer weight_regularizer;
  };
  std::span<Layer> layers() { return layers_; }
  /// Keeps a full batch and sets z and a by a forward pass. Arguments as for BCD.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// A sweep over the bound data. The report is valid until the next one.
  const DlamReport& step();
  /// `sweeps` sweeps over a mini-batch, from a forward pass. Not given: depth + 1, what it takes to reach the
  /// first layer.
  const DlamReport& step(const at::Tensor& x, const at::Tensor& y, std::optional<int64_t> sweeps = {},
                         const at::Tensor& sample_weight = {});

  /// F, accumulated in float64.
  double objective();
  /// The largest |a_l - h_l(z_l)| - eps of all entries: at most 0, up to rounding; -inf where there is no
  /// hidden layer.
  double gap();

  /// Copies of the variables. W[0], b[0] and z[0] belong to the first Linear, a[0] is x.
  struct Variables {
    std::vector<at::Tensor> W, b, z, a;
  };
  Variables variables();

 private:
  std::vector<detail::NamedOption> layer_options(size_t layer) override;
  std::vector<detail::NamedOption> scheme_options() override;
  std::vector<detail::NamedOption> counters() override;
  void apply_options() override;

  std::vector<Layer> layers_;
  EpsSchedule eps_;
  int64_t sweeps_since_bind_ = 0;
  bool monotone_;
  bool joint_;
  int64_t momentum_;
  std::optional<double> weight_damping_;
  bool fista_;
  bool check_conditions_;
};

}  // namespace torchbcd
