// dlADMM (Wang, Yu, Chen, Zhao, KDD 2019), the method that Wang et al. compare DLAM with, on
//
//   L(W, z, a, u) = R(z_L; y) + sum_l Omega_l(W_l)
//                   + nu/2 sum_{l<L} ( |z_l - q_l|^2 + |a_l - h_l(z_l)|^2 )
//                   + <u, z_L - q_L> + rho/2 |z_L - q_L|^2,       q_l = a_{l-1} W_l^T + 1 b_l^T,   a_0 = x:
//
// a backward pass over a_l, z_l, b_l, W_l, a forward pass over W_l, b_l, z_l, a_l, and a step of u. z and b
// are exact, W and a take gradient steps whose sizes are found by line search.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/mlp_trainer.h"
#include "engine/network.h"
#include "torchbcd/export.h"

namespace torchbcd {

struct DladmmLayer {
  double penalty = 1e-3;                     // nu of a hidden layer, rho of the last
  functors::Regularizer weight_regularizer;  // Omega_l
};

struct DladmmVariables {
  std::vector<at::Tensor> z;  // (n, d_l), every layer
  std::vector<at::Tensor> a;  // (n, d_l), every layer but the last
  std::vector<at::Tensor> q;  // (n, d_l), every layer
  at::Tensor u;               // (n, d_L)
};

class TORCHBCD_API DladmmTrainer : public MlpTrainer {
 public:
  /// The last activation must be the identity: R is a function of z_L.
  DladmmTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                const std::vector<functors::Activation>& activations, const functors::Loss& loss);

  void set_layer_options(size_t layer, const DladmmLayer& options);

  /// Keeps the data and sets z and a by one forward pass, u to zero.
  void bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight = {});
  bool bound() const override { return rows_.x.defined(); }
  const DladmmReport& step();

  /// The terms of L; the multiplier's is part of the last affine penalty.
  ObjectiveTerms objective();
  TrainerState variables();
  TrainerState state() const override;
  void load_state(const TrainerState& state) override;

 private:
  struct Rows {
    at::Tensor x, y, row_weight;
    DladmmVariables current, next;
    std::vector<at::Tensor> scratch;
  };

  Rows allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight) const;
  void note_changes();
  void check_bound() const;
  at::Tensor scratch(int which, int64_t columns) const;
  const at::Tensor& input(const DladmmVariables& at, size_t l) const {
    return l == 0 ? rows_.x : at.a[l - 1];
  }
  at::Tensor target(size_t l) const;
  void state_block(size_t l, DladmmReport& report);
  void auxiliary_block(size_t l);
  void bias_block(size_t l);
  void weight_block(size_t l, DladmmReport& report);
  void done(const char* block, size_t layer) const;

  std::vector<functors::Activation> activations_;
  std::vector<DladmmLayer> layers_;
  Rows rows_;
  DladmmReport report_;
};

}  // namespace torchbcd
