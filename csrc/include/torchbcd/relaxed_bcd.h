// Relaxed block coordinate descent: the optimizer to train with.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <memory>
#include <optional>

#include "torchbcd/bcd.h"
#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

struct RelaxedRows;

/// Trains an MLP by certified relaxed block coordinate descent, one mini-batch a step: torchbcd.RelaxedBCD
/// for C++ programs. No block of a step raises the batch's lifted objective.
class TORCHBCD_API RelaxedBCD : public SplitOptimizer {
 public:
  explicit RelaxedBCD(const torch::nn::Sequential& model, const RelaxedBCDOptions& options = {});
  explicit RelaxedBCD(Mlp mlp, const RelaxedBCDOptions& options = {});

  RelaxedBCD(RelaxedBCD&&) noexcept;
  ~RelaxedBCD() override;

  /// The options, with a value for each layer: options().damping()[0] is the first layer's. They may be
  /// changed between steps; the next call checks them.
  RelaxedBCDOptions& options();
  /// The rows of the options.
  static const OptionTable& table();
  /// Sets every layer's lr.
  void set_lr(double lr);

  /// Keeps a full batch for step(). Arguments as for BCD, but that a row's weight is one of all its terms: a
  /// row of weight two is two rows, one of weight zero is none. The weights' sum must be > 0, and
  /// row_blocks 1. With a scratch folder as for BCD; what a run goes on with is the weights, their last step
  /// and, where they persist, U and V.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {},
            const ScratchDir& scratch = {});
  bool bound() const override;
  /// A sweep over the bound data. The report is valid until the next one.
  const RelaxedReport& step();
  /// A sweep over a mini-batch.
  const RelaxedReport& step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});

  /// The last sweep's report.
  const RelaxedReport& report() const;

  /// The terms of L at the variables of the last sweep, with the options it had, computed from them alone.
  ObjectiveTerms objective_terms() override;

  /// Copies of the last sweep's variables; in the middle of a sweep, for an observer, as they are then.
  using Variables = BCD::Variables;
  Variables variables() const;

  SavedState state() const override;
  void load_state(const SavedState& state) override;

 private:
  struct Data;

  const OptionTable& option_table() const override;
  void* option_values() const override;
  void check_options_together() const override;
  void check_takes_ranks() const override;
  bool takes_dropout() const override { return true; }
  bool takes_normalization() const override { return true; }
  bool takes_proximal() const override { return true; }
  void unbind() override;
  ObjectiveTerms last_sweep_terms(bool before) override;

  void sweep(bool batch);
  void set_start(bool batch);
  bool match_output_scale(bool batch);
  std::optional<bool> begin_run(ScratchRun& run, RelaxedRows& rows);
  void save_states();
  void commit_recorded(bool persistent, bool step_to_go_on_with);
  void guard(bool forward_with_old);

  std::unique_ptr<Data> data_;
};

}  // namespace torchbcd
