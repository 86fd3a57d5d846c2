// DLAM and mDLAM (Wang et al., Algorithms 1 and 2) on Problem 2,
//
//   F(W, z, a) = R(z_L; y) + sum_l Omega_l(W_l) + sum_l rho_l/2 |z_l - a_{l-1} W_l^T - 1 b_l^T|^2
//                subject to  |a_l - h_l(z_l)| <= eps  (l < L),      a_0 = x,
//
// in the order W_1, z_1, a_1, W_2, ..., W_L, z_L. Layers count from 0 in the code. q[l] = a[l-1] W_l^T + 1
// b_l^T is kept with the variables: the products that move it serve gradients, conditions and F alike, so
// that F costs none.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/mlp_trainer.h"
#include "engine/network.h"
#include "torchbcd/export.h"

namespace torchbcd {

struct DlamLayer {
  double rho = 1e-3;
  functors::Regularizer weight_regularizer;  // Omega_l
};

struct DlamOptions {
  bool monotone = true;  // mDLAM: what raises F is done again without extrapolation
  bool joint = false;    // (z_l, a_l) in one block, instead of z_l and then a_l
  Momentum momentum = Momentum::kNesterov;
  double weight_damping =
      0;  // > 0: W by eq. (1), with this many times rho mean(a^2 summed over rows) as proximal weight
  OutputSolver output_solver = OutputSolver::kProx;
  bool check_conditions = false;  // measure (2) and its twin from their definitions, in float64
};

struct DlamVariables {
  std::vector<at::Tensor> z;  // (n, d_l), every layer
  std::vector<at::Tensor> a;  // (n, d_l), every layer but the last
  std::vector<at::Tensor> q;  // (n, d_l), every layer
};

/// Rows of data with their variables: those of the last complete sweep, those being computed, and those of
/// the sweep before that the extrapolations need.
struct DlamRows {
  at::Tensor x, y, row_weight;
  DlamVariables current, next;
  DlamVariables feasible;  // `current` made feasible for a smaller eps; allocated when first needed
  std::vector<at::Tensor> a_previous;  // a of the sweep before `current`
  at::Tensor q_previous;               // q[0] of the sweep before `current`
  std::vector<at::Tensor> trial_q;     // where a step's q goes until it is accepted
  std::vector<at::Tensor> scratch;     // as large as the widest layer's
  bool has_previous = false;
  double eps = 0;                  // that `current` is feasible for
  double nesterov = 0;             // s^k
  int64_t since_refresh = 0;       // sweeps since q was last computed from scratch
  std::vector<double> theta, tau;  // of the last sweep, 0 where there was none

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
};

class TORCHBCD_API DlamTrainer : public MlpTrainer {
 public:
  /// The last activation must be the identity: R is a function of z_L.
  DlamTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
              const std::vector<functors::Activation>& activations, const functors::Loss& loss);

  void set_layer_options(size_t layer, const DlamLayer& options);
  void set_options(const DlamOptions& options);

  /// Keeps the data and sets z and a by one forward pass, where F is R plus Omega for every eps.
  void bind(const at::Tensor& x, const at::Tensor& y, double eps, const at::Tensor& sample_weight = {});
  bool bound() const override { return bound_.defined(); }

  /// One sweep over the bound data. Where `eps` is smaller than in the sweep before, z and a are made
  /// feasible first.
  const DlamReport& step(double eps);
  /// `sweeps` sweeps over a mini-batch whose z and a come from a forward pass. The first moves z_L alone, and
  /// each further one carries the error one layer down: fewer than depth + 1 leave the first layer's weights
  /// as they are.
  const DlamReport& step(const at::Tensor& x, const at::Tensor& y, double eps, int64_t sweeps,
                         const at::Tensor& sample_weight = {});

  /// The terms of F. An activation's term is the indicator of its box, 0 or infinity, rounding of sigma(z)
  /// allowed for.
  ObjectiveTerms objective();
  /// max over entries of |a_l - h_l(z_l)|, less eps.
  std::vector<double> gaps();
  /// Weights, z, a and the data: copies.
  TrainerState variables();

  TrainerState state() const override;
  void load_state(const TrainerState& state) override;

 private:
  DlamRows forward_pass(const at::Tensor& x, const at::Tensor& y, const at::Tensor& row_weight,
                        double eps) const;
  void allocate(DlamRows& rows) const;
  void note_changes();
  void refresh_products(DlamRows& rows) const;
  void sweep(DlamRows& rows, double eps);
  void check_eps(double eps) const;
  std::vector<double> gaps(const DlamRows& rows) const;
  DlamRows& point();

  std::vector<functors::Activation> activations_;
  std::vector<DlamLayer> layers_;
  DlamOptions options_;
  std::vector<AffineMap> previous_;  // the parameters of the sweep before `committed_`
  DlamRows bound_;
  DlamRows batch_;
  bool at_batch_ = false;  // whether the point that questions are about is the last mini-batch
  DlamReport report_;
};

}  // namespace torchbcd
