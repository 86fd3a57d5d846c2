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

#include "functors/activations.h"
#include "functors/losses.h"
#include "linalg/affine_map.h"
#include "torchbcd/options.h"
#include "torchbcd/reports.h"

namespace torchbcd {

/// All of L that is neither data nor a variable.
struct DladmmProblem {
  const char* name;  // of the optimizer, for errors
  const std::vector<functors::AnyActivation>& activations;
  const functors::AnyLoss& loss;
  const std::vector<Trained>& trained;  // of each layer
  const DLADMMOptions& options;

  size_t depth() const { return activations.size(); }
};

struct DladmmVariables {
  std::vector<at::Tensor> z;  // (n, d_l), every layer
  std::vector<at::Tensor> a;  // (n, d_l), every layer but the last
  std::vector<at::Tensor> q;  // (n, d_l), every layer
  at::Tensor u;               // (n, d_L)

  static DladmmVariables allocate(int64_t n, const std::vector<AffineMap>& maps);
};

/// Rows of data with their variables: those of the last complete sweep, and those being computed.
struct DladmmRows {
  at::Tensor x, y, row_weight;
  DladmmVariables current, next;
  std::vector<at::Tensor> scratch;  // three, as large as the widest layer's
  std::vector<double> theta;        // of the last sweep, 0 where there was none

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  static DladmmRows allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight,
                             const std::vector<AffineMap>& maps);
};

/// The terms of L; the multiplier's is part of the last affine penalty.
ObjectiveTerms objective_terms(const DladmmProblem& problem, const std::vector<AffineMap>& maps,
                               const DladmmRows& rows);

/// What a sweep reads and writes: from (maps, rows.current) to (next_maps, rows.next), touching nothing else
/// but scratch.
struct DladmmSweep {
  const DladmmProblem& problem;
  const std::vector<AffineMap>& maps;
  const std::vector<AffineMap>& next_maps;
  DladmmRows& rows;
  const BlockObserver& observer;
};

/// The report, with the theta that the next sweep starts from.
DladmmReport sweep_dladmm(const DladmmSweep& sweep);

}  // namespace torchbcd
