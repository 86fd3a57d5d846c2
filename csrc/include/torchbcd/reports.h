// What a sweep tells of itself, and what it is watched with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "torchbcd/export.h"

namespace torchbcd {

/// The terms of the lifted objective (Zeng et al., eq. 5), each accumulated in float64.
struct TORCHBCD_API ObjectiveTerms {
  double loss = 0;                         // loss_weight sum l(V_N; Y)
  std::vector<double> activation_penalty;  // gamma_l/2 |V_l - sigma(U_l)|^2
  std::vector<double> affine_penalty;      // rho_l/2 |U_l - W_l V_{l-1} - b_l|^2
  std::vector<double> weight_penalty;      // r_l(W_l)
  std::vector<double> state_penalty;       // s_l(V_l)

  double total() const;
};

/// scale times the difference of two sums over rows, and a constant: evaluated when it is asked for, so that
/// a sweep waits for no number that nobody reads.
struct TORCHBCD_API LazyValue {
  double constant = 0;
  double scale = 0;
  at::Tensor plus, minus;  // (n, 1), may be undefined: zero

  double value() const;
};

/// How far one block lowered L; NaN where row_blocks leaves it unmeasured.
struct BlockDecrease {
  const char* block;  // "V": the output's, "W", or "UV"
  size_t layer;       // from 1
  LazyValue decrease;
};

/// A sweep of RelaxedBCD.
struct TORCHBCD_API RelaxedReport {
  LazyValue before;               // L at the start: from a forward pass, the batch's loss and regularisers
  std::vector<double> penalties;  // rho of each layer
  std::vector<BlockDecrease> decreases;  // in the order of the sweep
  int64_t halved = 0;                    // layers whose states' step had to be shortened
  int64_t guard_halvings = 0;            // times that the guard halved the sweep's step
};

/// A sweep of DLAM, an entry a layer; states have one layer fewer.
struct TORCHBCD_API DlamReport {
  double eps = 0;
  double omega = 0;                // Nesterov's factor
  std::vector<double> theta, tau;  // of (2) and its twin; theta is 0 where W was solved for by eq. (1)
  std::vector<double> weight_omega, state_omega;  // the factors that were accepted
  std::vector<double> weight_slack,
      state_slack;       // (P - phi) and (Q - phi) over phi + |P|; with check_conditions
  int64_t redone = 0;    // blocks done again without extrapolation
  int64_t kept = 0;      // blocks that rounding left no way down for
  int64_t trials = 0;    // of theta and tau beyond the first
  int64_t products = 0;  // matrix products with a matrix of n rows
};

/// A sweep of DLADMM, an entry a layer.
struct TORCHBCD_API DladmmReport {
  std::vector<double> theta, tau;  // curvatures of the last W and a steps
  double primal_residual = 0;      // |z_L - q_L|
  int64_t products = 0;            // matrix products with a matrix of n rows
};

/// Called after each block of a sweep with the block's name and its layer, from 1. What it throws ends the
/// sweep, which then has changed nothing.
using BlockObserver = std::function<void(const char* block, size_t layer)>;

}  // namespace torchbcd
