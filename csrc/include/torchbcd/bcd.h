// Block coordinate descent of Zeng et al., Algorithms 1 and 2.
#pragma once

#include <torch/arg.h>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Options of BCD; every one but the loss is for all layers, or for each.
struct BCDOptions {
  /// "squared", "hinge", "logistic", "exponential" or "cross_entropy".
  TORCH_ARG(std::string, loss) = "squared";
  /// Penalty of V_i = sigma_i(U_i), > 0.
  TORCH_ARG(PerLayer<double>, gamma) = 1.0;
  /// Penalty of U_i = V_{i-1} W_i^T + 1 b_i^T, > 0. Not given: as gamma.
  TORCH_ARG(PerLayer<std::optional<double>>, rho) = std::nullopt;
  /// Proximal weight of the states, > 0.
  TORCH_ARG(PerLayer<double>, alpha) = 1.0;
  /// Proximal weight of weights and biases, > 0. Not given: as alpha.
  TORCH_ARG(PerLayer<std::optional<double>>, alpha_weight) = std::nullopt;
  /// The loss term is loss_weight times the sum over rows, divided by the number of rows with mean_loss.
  TORCH_ARG(double, loss_weight) = 1.0;
  TORCH_ARG(bool, mean_loss) = false;
  /// r_i and s_i.
  TORCH_ARG(PerLayer<Regularizer>, weight_regularizer) = Regularizer();
  TORCH_ARG(PerLayer<Regularizer>, state_regularizer) = Regularizer();
  /// 3 for Algorithm 2 (V, U, W), 2 for Algorithm 1 (V, W).
  TORCH_ARG(int64_t, splitting) = 3;
  TORCH_ARG(UpdateOrder, order) = UpdateOrder::kPaper;
  /// How many times V and U are updated before the W that follows them, >= 1.
  TORCH_ARG(int64_t, inner_sweeps) = 1;
};

/// Trains an MLP by block coordinate descent with variable splitting: torchbcd.BCD for C++ programs. One step
/// is one full sweep over all blocks of
///
///   w sum_rows l(V_N; Y) + sum_i ( gamma_i/2 |V_i - sigma_i(U_i)|^2
///                                  + rho_i/2 |U_i - V_{i-1} W_i^T - 1 b_i^T|^2 + r_i(W_i) + s_i(V_i) ),
///
/// which on bound data never rises (Zeng et al., Theorem 2).
class TORCHBCD_API BCD : public SplitOptimizer {
 public:
  explicit BCD(const torch::nn::Sequential& model, const BCDOptions& options = {});
  explicit BCD(Mlp mlp, const BCDOptions& options = {});

  /// What each layer carries; may be changed between steps.
  struct Layer {
    double gamma;
    std::optional<double> rho;
    double alpha;
    std::optional<double> alpha_weight;
    Regularizer weight_regularizer;
    Regularizer state_regularizer;
  };
  std::span<Layer> layers() { return layers_; }

  /// Keeps a full batch and sets U and V by a forward pass. x: (n, d_0), or (n, ...) where the model begins
  /// with Flatten. y: class indices (n,), int64, or values (n, d_N). sample_weight: of each row's loss, (n,),
  /// >= 0. The data are not copied where they are contiguous; do not change them while they are bound.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});

  /// The rows given to bind and step from now on are some of the data: other processes, whose models have the
  /// same parameters, have the others and take the same steps at the same time. `sum` adds a tensor up over
  /// all of them in place, to the same bits in each, such as c10d's all-reduce. Only Gram matrices, cross
  /// products and, for the objective, a few numbers go between them (Zeng et al., Appendix F). Algorithm 2
  /// only. Unbinds.
  void set_sum_over_ranks(std::function<void(const at::Tensor&)> sum);

  /// A sweep over the bound data.
  void step();
  /// A sweep over a mini-batch whose U and V come from a forward pass.
  void step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// A sweep over rows `index`, int64, of the bound data, whose U and V persist between visits.
  void step_rows(const at::Tensor& index);

  /// The objective, accumulated in float64: of the bound data, or of the last mini-batch that was not part of
  /// them.
  double objective();
  ObjectiveTerms objective_terms();

  /// Copies of the split variables. W[0], b[0] and U[0] belong to the first Linear, V[0] is x, V[N] the
  /// output.
  struct Variables {
    std::vector<at::Tensor> W, b, U, V;
  };
  Variables variables();

 private:
  std::vector<detail::NamedOption> layer_options(size_t layer) override;
  std::vector<detail::NamedOption> scheme_options() override;
  void apply_options() override;

  std::vector<Layer> layers_;
  int64_t splitting_;
  int64_t order_;
  int64_t inner_sweeps_;
};

}  // namespace torchbcd
