// Block coordinate descent of Zeng et al., Algorithms 1 and 2.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/scratch_dir.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

class ScratchRun;
struct BcdRows;
enum class Residuals;

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

  BCD(BCD&&) noexcept;
  ~BCD() override;

  /// The options, with a value for each layer: options().gamma()[0] is the first layer's. They may be changed
  /// between steps; the next call checks them.
  BCDOptions& options();
  /// The rows of the options.
  static const OptionTable& table();

  /// Keeps a full batch and sets U and V by a forward pass. x: (n, d_0), or (n, ...) where the model begins
  /// with Flatten. y: class indices (n,), int64, or values (n, d_N). sample_weight: of each row's loss, (n,),
  /// >= 0. u and v: what U and V start from instead, one tensor (n, d_l) for every layer; where one of them
  /// is given alone, the other is U_l = V_{l-1} W_l^T + 1 b_l^T or V_l = sigma_l(U_l). The data are copied.
  ///
  /// With a scratch folder the copies, U and V are in its files: memory does not grow with n, and a process
  /// that is killed loses no complete sweep. On the CPU, of one process. To go on with a run
  /// sets the model's weights, the count of sweeps, U and V to those of its last complete sweep; data must be
  /// the same, u and v are not used.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {},
            const std::vector<at::Tensor>& u = {}, const std::vector<at::Tensor>& v = {},
            const ScratchDir& scratch = {});

  bool bound() const override;

  /// A sweep over the bound data.
  void step();
  /// A sweep over a mini-batch whose U and V come from a forward pass.
  void step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// A sweep over rows `index`, int64, of the bound data, whose U and V persist between visits. x and y,
  /// where they are given, must be those rows.
  void step_rows(const at::Tensor& index, const at::Tensor& x = {}, const at::Tensor& y = {});

  /// The terms of the objective: of the bound data, or of the last mini-batch that was not part of them.
  ObjectiveTerms objective_terms() override;

  /// Copies of the split variables. W[0], b[0] and U[0] belong to the first Linear, V[0] is x, V[N] the
  /// output.
  struct Variables {
    std::vector<at::Tensor> W, b, U, V;
  };
  Variables variables();

  /// Variables and all that the objective at them depends on.
  struct Point {
    Variables variables;
    at::Tensor y, row_weight;  // (n, d_N); (n, 1) or (1, 1)
    double row_loss_weight;    // what the loss of a row of weight one counts
    BCDOptions options;
    std::vector<std::tuple<bool, bool, bool>> trained;  // a layer's weight, bias and slope; or frozen
    std::vector<at::Tensor> slopes;  // (1,), of activations that are PReLUs; undefined otherwise
  };
  /// The point that objective() speaks of.
  Point point();
  /// Where a sweep led to, or began, on the rows that it worked on. Throws a c10::Error where the optimizer
  /// has moved on.
  Point sweep_point(const SweepId& sweep, bool before = false);

  SavedState state() const override;
  void load_state(const SavedState& state) override;

 private:
  struct Data;

  const OptionTable& option_table() const override;
  void* option_values() const override;
  void check_options_together() const override;
  void check_takes_ranks() const override;
  void check_takes_folder() const override;
  bool takes_proximal() const override { return true; }
  void unbind() override;
  void parameters_changed() override;
  ObjectiveTerms last_sweep_terms(bool before) override;

  bool has_least_squares(size_t l) const;
  void check_joint() const;
  BlockObserver observer_of_run() const;
  void record_stale(const BcdRows& rows);
  void commit_recorded(bool batch, Residuals residuals);
  void sweep(bool batch);
  Point point_at(const BCDOptions& options, bool batch, bool before);

  std::unique_ptr<Data> data_;
};

}  // namespace torchbcd
