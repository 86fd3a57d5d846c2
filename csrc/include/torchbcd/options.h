// The options of the optimizers, each with its default. Ranges, names and a line of help for each are in the
// tables of csrc/optimizers.
#pragma once

#include <torch/arg.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "torchbcd/per_layer.h"
#include "torchbcd/regularizers.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// What each row's loss counts in an objective whose mean, if one is asked for, is over `rows` rows, or over
/// what they weigh.
template <typename Options, typename Count>
double row_loss_weight(const Options& options, Count rows) {
  if (options.loss_scaling() == "sum") {
    return options.loss_weight();
  }
  // Zeng et al. write the squared loss as |v - y|^2, which is twice the library's.
  const double times = options.loss_scaling() == "paper" && options.loss() == "squared" ? 2 : 1;
  return times * options.loss_weight() / static_cast<double>(rows);
}

/// Options of BCD.
struct BCDOptions {
  /// By name, such as "squared" or "quantile(0.9)", whose number is its level; "cross_entropy(0.1, 1, 2, 5)"
  /// has its label smoothing first, then a weight for each class. Several, each of outputs of its own and
  /// with a weight: "multi_output(10: cross_entropy, 1: 0.5 * quantile(0.9))". An unknown one is answered
  /// with all single ones.
  TORCH_ARG(std::string, loss) = "squared";
  /// Penalty of V_i = sigma_i(U_i), > 0.
  TORCH_ARG(PerLayer<double>, gamma) = 1.0;
  /// Penalty of U_i = V_{i-1} W_i^T + 1 b_i^T, > 0. Not given: as gamma.
  TORCH_ARG(PerLayer<std::optional<double>>, rho) = std::nullopt;
  /// Proximal weight of the states, > 0.
  TORCH_ARG(PerLayer<double>, alpha) = 1.0;
  /// Proximal weight of weights and biases, > 0. Not given: as alpha.
  TORCH_ARG(PerLayer<std::optional<double>>, alpha_weight) = std::nullopt;
  /// r_i and s_i.
  TORCH_ARG(PerLayer<WeightRegularizer>, weight_regularizer) = WeightRegularizer();
  /// Sums over entries, or one's own, of a layer's V.
  TORCH_ARG(PerLayer<WeightRegularizer>, state_regularizer) = WeightRegularizer();
  /// Whether r_i covers the bias, too, as where it is a column of W_i.
  TORCH_ARG(bool, regularize_bias) = false;
  /// 3 for Algorithm 2 (V, U, W), 2 for Algorithm 1 (V, W).
  TORCH_ARG(int64_t, splitting) = 3;
  /// "paper": all blocks of a layer, from the last layer to the first; "states_first": all V and U, and then
  /// all W; "layer_parallel": all V, then all U, then all W; "joint", with splitting 2: all V as one block,
  /// then all W, without proximal terms, so that alpha is not used; or a list of blocks, "V2 U2 W2 V1 U1 W1",
  /// with every block at least once.
  TORCH_ARG(std::string, order) = "paper";
  /// How many times V and U are updated before the W that follows them, >= 1.
  TORCH_ARG(int64_t, inner_sweeps) = 1;
  /// The loss term is loss_weight times: "sum", the sum over rows; "mean", that over the number of rows;
  /// "paper", the mean as Zeng et al. write it, whose squared loss is |v - y|^2, twice the library's.
  TORCH_ARG(double, loss_weight) = 1.0;
  TORCH_ARG(std::string, loss_scaling) = "sum";

 public:
  double rho_of(size_t layer) const { return rho_[layer].value_or(gamma_[layer]); }
  double alpha_weight_of(size_t layer) const { return alpha_weight_[layer].value_or(alpha_[layer]); }
};

/// Options of RelaxedBCD; docs/relaxed.md says what they do.
struct RelaxedBCDOptions {
  /// By name, such as "squared" or "cross_entropy"; an unknown one is answered with all there are.
  TORCH_ARG(std::string, loss) = "squared";
  /// A factor of every relaxation and decay, for schedules.
  TORCH_ARG(PerLayer<double>, lr) = 1.0;
  /// Of the weights, in [0, 2). One value is for the hidden layers, whose last has output_relaxation.
  TORCH_ARG(PerLayer<double>, relaxation) = 0.45;
  TORCH_ARG(double, output_relaxation) = 0.055;
  /// How many times a hidden layer's relaxation is that of the next one, >= 1, where relaxation is one value:
  /// that of the last hidden layer. None becomes larger than 1.5 by it, or than 1 with a regulariser that is
  /// not a squared norm. The layers outside of Residuals count as a net of their own; those of a branch begin
  /// with 0.22 of the relaxation, at its end.
  TORCH_ARG(double, growth) = 1.6;
  /// Of the states that a layer reads, in (0, 2).
  TORCH_ARG(PerLayer<double>, over_relaxation) = 1.9;
  /// Proximal weight of W and b relative to the mean square of the layer's inputs, > 0. Not given: 1.1 where
  /// targets are classes, 0.3 where they are numbers.
  TORCH_ARG(PerLayer<std::optional<double>>, damping) = std::nullopt;
  /// Ratio of neighbouring layers' penalties, > 0.
  TORCH_ARG(PerLayer<double>, penalty_ratio) = 0.032;
  /// Conjugate gradient steps of the states, >= 1.
  TORCH_ARG(PerLayer<int64_t>, state_steps) = 1;
  /// > 1: W as the average of ridge regressions on so many blocks of rows, and one length for the steps of
  /// the states that the layer reads. Cheaper, not exact, not certified.
  TORCH_ARG(PerLayer<int64_t>, row_blocks) = 1;
  /// The most that a batch's states move, relative to their norm, > 0; where it is one value, 0.6 of it in
  /// nets of more than eight Residuals. Not given: no cap.
  TORCH_ARG(PerLayer<std::optional<double>>, cap) = 0.25;
  /// The part of its last step that a layer's W and b go on before a sweep, in [0, 1). Not given: 0.7, or 0.5
  /// in nets of more than twelve layers, those of Residuals not counted; 0 with persistent. An optimizer sets
  /// it when it is made.
  TORCH_ARG(PerLayer<std::optional<double>>, momentum) = std::nullopt;
  /// The part of a layer's W, times lr, that is taken off before a sweep, in [0, 1). Not given:
  /// default_weight_decay.
  TORCH_ARG(PerLayer<std::optional<double>>, weight_decay) = std::nullopt;
  TORCH_ARG(PerLayer<WeightRegularizer>, weight_regularizer) = WeightRegularizer();
  /// Keep the batch's true loss from rising: halve the step until it does not.
  TORCH_ARG(bool, guard) = false;
  /// Keep U, V and the penalties of bound data from sweep to sweep.
  TORCH_ARG(bool, persistent) = false;
  /// rho_N of losses other than "squared", > 0.
  TORCH_ARG(double, output_penalty) = 1.0;
  TORCH_ARG(double, loss_weight) = 1.0;
  /// "sum" over rows or "mean".
  TORCH_ARG(std::string, loss_scaling) = "sum";

 public:
  /// An older setting for deep nets, with two conjugate gradient steps and neither momentum nor decay.
  static RelaxedBCDOptions for_any_depth() {
    return RelaxedBCDOptions()
        .relaxation(0.5)
        .growth(1)
        .output_relaxation(0.5)
        .damping(0.1)
        .penalty_ratio(0.03)
        .state_steps(2)
        .cap(0.15)
        .momentum(0.0)
        .weight_decay(0.0);
  }

  double relaxation_of(size_t layer) const { return lr_[layer] * relaxation_[layer]; }
  /// `classes`: whether targets are class indices, rather than numbers.
  double damping_of(size_t layer, bool classes) const {
    return damping_[layer].value_or(classes ? 1.1 : 0.3);
  }
  double momentum_of(size_t layer) const {
    const size_t depth = momentum_.values().size();
    return momentum_[layer].value_or(persistent_ ? 0 : depth > 12 ? 0.5 : 0.7);
  }
  /// weight_decay where it is not given: 2e-4 where targets are classes, 1e-4 where they are numbers; 0 where
  /// a weight_regularizer is more than constraints, and with persistent. 0 for the last of several layers:
  /// hidden ones refit what it loses faster than they lose anything themselves, and grow without end.
  double default_weight_decay(size_t layer, bool classes) const {
    const size_t depth = weight_decay_.values().size();
    const bool last = layer > 0 && layer + 1 == depth;
    const bool none = persistent_ || last || weight_regularizer_[layer].penalizes();
    return none ? 0 : classes ? 2e-4 : 1e-4;
  }
  double weight_decay_of(size_t layer, bool classes) const {
    return lr_[layer] * weight_decay_[layer].value_or(default_weight_decay(layer, classes));
  }
};

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
  /// By name, such as "squared" or "cross_entropy"; an unknown one is answered with all there are.
  TORCH_ARG(std::string, loss) = "cross_entropy";
  /// Penalty of z_l = a_{l-1} W_l^T + 1 b_l^T, > 0.
  TORCH_ARG(PerLayer<double>, rho) = 1e-3;
  /// Tolerance of a_l = h_l(z_l), > 0 (>= 0 with joint): a number or a schedule. Not given: EpsSchedule(), or
  /// 0.003 with joint. **Without joint, a constant eps trains no hidden layer.**
  TORCH_ARG(std::optional<EpsSchedule>, eps) = std::nullopt;
  /// mDLAM (Algorithm 2) rather than DLAM (Algorithm 1).
  TORCH_ARG(bool, monotone) = true;
  TORCH_ARG(PerLayer<WeightRegularizer>, weight_regularizer) = WeightRegularizer();
  /// Minimise over (z_l, a_l) together, entry by entry and exactly.
  TORCH_ARG(bool, joint) = false;
  /// The factor of the extrapolations: "none"; "nesterov", Nesterov's sequence (Algorithm 1, lines 3 and 4);
  /// or "capped", that sequence, held below what Theorem 1 asks for, omega^2 < theta^k / theta^{k+1} (and
  /// likewise tau), block by block.
  TORCH_ARG(std::string, momentum) = "nesterov";
  /// What mDLAM asks of a step from an extrapolated point: that F falls by at least this part, in [0, 1), of
  /// theta/2 |change|^2. 0: only that F falls (Algorithm 2, lines 7 and 22).
  TORCH_ARG(double, sufficient_decrease) = 1e-3;
  /// Not given: the linearised W step of eq. (3). 0: eq. (1) itself. > 0: with this relative proximal weight.
  TORCH_ARG(std::optional<double>, weight_damping) = std::nullopt;
  /// How z_L is solved for: "prox", by the loss's own, or "fista".
  TORCH_ARG(std::string, output_solver) = "prox";
  /// Measure condition (2) and its twin from their definitions, for the report's slacks.
  TORCH_ARG(bool, check_conditions) = false;
  TORCH_ARG(double, loss_weight) = 1.0;
  /// "sum" over rows or "mean".
  TORCH_ARG(std::string, loss_scaling) = "sum";
};

/// Options of DLADMM.
struct DLADMMOptions {
  /// By name, such as "squared" or "cross_entropy"; an unknown one is answered with all there are.
  TORCH_ARG(std::string, loss) = "cross_entropy";
  /// Penalty of the last layer's constraint, > 0.
  TORCH_ARG(double, rho) = 1e-3;
  /// Penalty of the hidden layers, > 0. Not given: as rho.
  TORCH_ARG(std::optional<double>, nu) = std::nullopt;
  /// Each layer's penalty, > 0. An optimizer sets it from nu and rho when it is made.
  TORCH_ARG(PerLayer<double>, penalty) = 1e-3;
  TORCH_ARG(PerLayer<WeightRegularizer>, weight_regularizer) = WeightRegularizer();
  TORCH_ARG(double, loss_weight) = 1.0;
  /// "sum" over rows or "mean".
  TORCH_ARG(std::string, loss_scaling) = "sum";
};

}  // namespace torchbcd
