// The trainer behind torchbcd.BCD: owns the split variables, keeps them at the last complete sweep, and
// offers the three ways to step.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/mlp_trainer.h"
#include "engine/network.h"
#include "engine/sweep.h"
#include "torchbcd/export.h"

namespace torchbcd {

class TORCHBCD_API BcdTrainer : public MlpTrainer {
 public:
  BcdTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
             const std::vector<functors::Activation>& activations, const functors::Loss& loss);

  void set_splitting(Splitting splitting) { network_.splitting = splitting; }
  void set_order(UpdateOrder order, int64_t inner_sweeps);

  void set_layer_options(size_t layer, const LayerOptions& options);
  void set_loss_weight(double weight, bool mean) override;
  /// The rows given from now on are some of the data; other processes, with the same model, have the others,
  /// and take the same steps at the same time (Zeng et al., Appendix F). Algorithm 2 only.
  void set_sum_over_ranks(SumOverRanks sum);

  /// Full batch: keeps the data and sets U, V by one forward pass.
  /// `sample_weight` (n,), of each row's loss, may be undefined: then all are 1.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  bool bound() const override { return bound_.defined(); }

  /// One sweep over the bound data.
  void step();
  /// One sweep over a mini-batch whose U, V come from a forward pass.
  void step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// One sweep over rows `index` of the bound data, whose U, V persist between visits.
  void step_rows(const at::Tensor& index);
  /// Throws unless (x, y) are rows `index` of the bound data.
  void check_rows(const at::Tensor& index, const at::Tensor& x, const at::Tensor& y) const;

  /// Which point a question is about: after the last sweep, or before it (which the sweep's second set of
  /// variables still holds, until the next one).
  enum class When { kAfter, kBefore };

  /// The lifted objective: of the bound data, or of the last mini-batch where that was not part of the bound
  /// data. `last_rows` asks for the rows of the last step alone, as does kBefore.
  ObjectiveTerms objective(bool last_rows, When when = When::kAfter);

  /// Weights, U, V and the data of the same rows: copies.
  TrainerState variables(bool last_rows, When when = When::kAfter);

  /// What the loss of a row of weight one counts in the objective.
  double loss_weight_of_a_row(bool last_rows) const {
    return row_loss_weight(network_, point(last_rows, When::kAfter));
  }

  TrainerState state() const override;
  void load_state(const TrainerState& state) override;

 private:
  enum class Point { kNone, kBound, kBoundRows, kBatch };

  void unbind();
  int64_t rows_of_all_ranks(int64_t rows) const;
  at::Tensor checked_index(const at::Tensor& index) const;
  void note_changes();
  void resize_batch(int64_t rows);
  void sweep(RowSet& rows, InputBlockCache& cache);
  void check_finite(const RowSet& rows) const;
  const RowSet& point(bool last_rows, When when) const;

  Network network_;
  RowSet bound_;
  InputBlockCache bound_cache_;
  RowSet batch_;  // views of the first rows of batch_storage_
  SplitVariables batch_storage_current_;
  SplitVariables batch_storage_next_;
  Point point_ = Point::kNone;
  bool has_before_ = false;  // whether the variables of before the last sweep are still there
};

}  // namespace torchbcd
