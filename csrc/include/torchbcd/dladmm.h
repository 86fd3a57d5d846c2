// dlADMM, the method that Wang et al. compare DLAM with.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <memory>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Trains an MLP by dlADMM: torchbcd.DLADMM for C++ programs. Its objective is not monotone.
class TORCHBCD_API DLADMM : public SplitOptimizer {
 public:
  explicit DLADMM(const torch::nn::Sequential& model, const DLADMMOptions& options = {});
  explicit DLADMM(Mlp mlp, const DLADMMOptions& options = {});

  DLADMM(DLADMM&&) noexcept;
  ~DLADMM() override;

  /// The options, with a value for each layer: options().penalty()[0] is the first layer's. They may be
  /// changed between steps; the next call checks them.
  DLADMMOptions& options();
  /// The rows of the options.
  static const OptionTable& table();

  /// Keeps a full batch, sets z and a by a forward pass and the multiplier to zero. Arguments as for BCD.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// A sweep over the bound data. The report is valid until the next one.
  const DladmmReport& step();
  bool bound() const override;
  /// The terms of the augmented Lagrangian; the multiplier's is part of the last affine penalty.
  ObjectiveTerms objective_terms() override;

  /// Copies of the variables. W[0], b[0] and z[0] belong to the first Linear, a[0] is x.
  struct Variables {
    std::vector<at::Tensor> W, b, z, a;
    at::Tensor u;
  };
  Variables variables();

  SavedState state() const override;
  void load_state(const SavedState& state) override;

 private:
  struct Data;

  const OptionTable& option_table() const override;
  void* option_values() const override;
  void unbind() override;
  void parameters_changed() override;
  ObjectiveTerms last_sweep_terms(bool before) override;
  void check_bound() const;

  std::unique_ptr<Data> data_;
};

}  // namespace torchbcd
