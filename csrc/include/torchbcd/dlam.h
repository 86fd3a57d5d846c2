// DLAM and mDLAM of Wang et al., Algorithms 1 and 2.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <memory>
#include <optional>
#include <vector>

#include "torchbcd/options.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

struct DlamRows;

/// Trains an MLP by the (monotone) deep learning alternating minimization of Wang et al.: torchbcd.DLAM for
/// C++ programs. The last Linear has no activation.
class TORCHBCD_API DLAM : public SplitOptimizer {
 public:
  explicit DLAM(const torch::nn::Sequential& model, const DLAMOptions& options = {});
  explicit DLAM(Mlp mlp, const DLAMOptions& options = {});

  DLAM(DLAM&&) noexcept;
  ~DLAM() override;

  /// The options, with a value for each layer: options().rho()[0] is the first layer's. They may be changed
  /// between steps; the next call checks them.
  DLAMOptions& options();
  /// The rows of the options.
  static const OptionTable& table();
  /// Keeps a full batch and sets z and a by a forward pass, or as they are given: z (n, d_l) for every layer,
  /// a (n, d_l) for every hidden one, with |a_l - h_l(z_l)| <= eps(). With z alone, a_l = h_l(z_l). With a
  /// alone, z_l is the point nearest to a_{l-1} W_l^T + 1 b_l^T that a_l allows. Other arguments as for BCD.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {},
            const std::vector<at::Tensor>& z = {}, const std::vector<at::Tensor>& a = {});
  /// A sweep over the bound data. The report is valid until the next one.
  const DlamReport& step();
  /// `sweeps` sweeps over a mini-batch, from a forward pass. Not given: depth + 1, what it takes to reach the
  /// first layer.
  const DlamReport& step(const at::Tensor& x, const at::Tensor& y, std::optional<int64_t> sweeps = {},
                         const at::Tensor& sample_weight = {});

  bool bound() const override;
  /// The tolerance of the next sweep.
  double eps() const;
  /// Sweeps over the bound data since they were bound: what the schedule of eps counts.
  int64_t sweeps_since_bind() const;

  /// The terms of F: of the bound data, or of the last mini-batch where that was stepped on later. An
  /// activation's term is the indicator of its box.
  ObjectiveTerms objective_terms() override;
  /// The largest |a_l - h_l(z_l)| - eps of all entries, in every process: at most 0, up to rounding; -inf
  /// where there is no hidden layer.
  double gap();
  /// The same after a sweep. Throws a c10::Error where the optimizer has moved on.
  double sweep_gap(const SweepId& sweep);

  /// Copies of the variables. W[0], b[0] and z[0] belong to the first Linear, a[0] is x.
  struct Variables {
    std::vector<at::Tensor> W, b, z, a;
  };
  Variables variables();

  SavedState state() const override;
  void load_state(const SavedState& state) override;

 private:
  struct Data;

  const OptionTable& option_table() const override;
  void* option_values() const override;
  void check_options_together() const override;
  void unbind() override;
  void parameters_changed() override;
  ObjectiveTerms last_sweep_terms(bool before) override;

  DlamRows start(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight,
                 const std::vector<at::Tensor>& z = {}, const std::vector<at::Tensor>& a = {}) const;
  void sweep(DlamRows& rows);

  std::unique_ptr<Data> data_;
};

}  // namespace torchbcd
