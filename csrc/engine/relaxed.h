// RelaxedBCD: block coordinate descent in the order of Zeng et al., Algorithm 2, on one mini-batch at a time,
// with blocks relaxed and penalties chosen so that hidden layers learn. docs/relaxed.md derives it and proves
// that no block raises
//
//   L = l(V_N; Y) + sum_l ( rho_l/2 |U_l - V_{l-1} W_l^T - 1 b_l^T|^2 + rho_l r_l(W_l) ),
//
// on V_l = sigma_l(U_l), V_0 = x.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "engine/mlp_trainer.h"
#include "engine/network.h"
#include "torchbcd/export.h"
#include "torchbcd/reports.h"

namespace torchbcd {

struct RelaxedLayer {
  double relaxation = 0.3;       // nu, of the W block: in [0, 2), or [0, 1] where r is not quadratic
  double over_relaxation = 1.9;  // omega, of the block of the states that the layer reads, in (0, 2)
  double damping = 0.1;          // proximal weight of W, relative to the mean square of its inputs
  double penalty_ratio = 0.01;   // rho_{l-1} / rho_l, relative to the mean square norm of W_l's rows
  int64_t state_steps = 1;       // conjugate gradient steps of the state block
  int64_t row_blocks = 1;        // > 1: W as the average over so many blocks of rows, and states unchecked
  double cap = 0;           // > 0: the states of a batch move by no more than this, relative to their norm
  double momentum = 0;      // in [0, 1): a sweep starts this part of the last sweep's step further on
  double weight_decay = 0;  // in [0, 1): the part of W that is taken off before a sweep
  functors::Regularizer weight_regularizer;
};

struct RelaxedOptions {
  bool guard = false;         // keep the true loss of the batch from rising: halve the step until it does not
  bool persistent = false;    // bound data keep their U and V, and the penalties those of bind
  double output_penalty = 1;  // rho_N, where the output is not clamped to the target
};

/// Rows with what a sweep keeps of them, a tensor (n, d_l) a layer.
struct RelaxedRows {
  at::Tensor x, y;
  std::vector<at::Tensor> p;        // V_{l-1} W_l^T + 1 b_l^T with the weights that the sweep started from
  std::vector<at::Tensor> v;        // states
  std::vector<at::Tensor> slack;    // U - p, where U has moved
  std::vector<at::Tensor> change;   // of the states, by their block
  std::vector<at::Tensor> scratch;  // four, as large as the widest layer's
  std::vector<at::Tensor> saved_u;  // persistent: U and V at the last complete sweep
  std::vector<at::Tensor> saved_v;
  std::vector<double> penalties;  // those of the last sweep, or, where they persist, of all

  int64_t rows() const { return x.size(0); }
};

/// How far a sweep has come, for those who look on.
struct RelaxedProgress {
  size_t first_updated = 0;  // the layers from here on have their new weights
  size_t first_moved = 0;    // and those from here on their new U and V
};

class TORCHBCD_API RelaxedTrainer : public MlpTrainer {
 public:
  /// The squared loss takes any output activation; the other losses take none.
  RelaxedTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                 const std::vector<functors::Activation>& activations, const functors::Loss& loss);

  void set_layer_options(size_t layer, const RelaxedLayer& options);
  void set_options(const RelaxedOptions& options);

  /// Keeps a full batch for step(). With `persistent`, the first sweep sets U, V and the penalties.
  void bind(const at::Tensor& x, const at::Tensor& y);
  bool bound() const override { return bound_.x.defined(); }

  /// One sweep over the bound data.
  const RelaxedReport& step();
  /// One sweep over a mini-batch, from a forward pass.
  const RelaxedReport& step(const at::Tensor& x, const at::Tensor& y);

  /// The last sweep's report.
  const RelaxedReport& report() const { return report_; }

  /// L at the variables of the last sweep, computed from them alone.
  ObjectiveTerms objective() const;
  /// Weights, U, V and the data of the last sweep's rows; in the middle of a sweep, as they are then.
  TrainerState variables() const;

  TrainerState state() const override;
  void load_state(const TrainerState& state) override;

 private:
  bool clamped() const { return std::holds_alternative<functors::SquaredLoss>(loss_) && identity_output(); }
  bool identity_output() const { return std::holds_alternative<functors::Identity>(activations_.back()); }
  RelaxedRows allocate(int64_t n) const;
  RelaxedRows& batch(int64_t n);
  void sweep(RelaxedRows& rows, bool persistent);
  std::vector<double> penalties(const RelaxedRows& rows) const;
  double true_loss(const RelaxedRows& rows, const at::Tensor& outputs) const;
  bool any_layer(double RelaxedLayer::* option) const;
  void set_start();
  void keep_velocity();
  const std::vector<AffineMap>& start() const { return start_apart_ ? start_storage_ : parameters_; }
  void guard(RelaxedRows& rows, bool forward_with_old);
  const RelaxedRows& point() const;

  std::vector<functors::Activation> activations_;
  std::vector<RelaxedLayer> layers_;
  RelaxedOptions options_;
  std::vector<AffineMap> velocity_;       // with momentum, the step of the last sweep; otherwise empty
  std::vector<AffineMap> start_storage_;  // with momentum or decay
  bool start_apart_ = false;              // whether a sweep starts there, rather than at the model's weights
  RelaxedRows bound_;
  RelaxedRows storage_;                // of mini-batches, as large as the largest so far
  RelaxedRows batch_;                  // views of its first rows
  const RelaxedRows* last_ = nullptr;  // those of the last sweep
  RelaxedProgress progress_;
  bool sweeping_ = false;
  RelaxedReport report_;
};

}  // namespace torchbcd
