// dlADMM (Wang, Yu, Chen, Zhao, KDD 2019), the method that Wang et al. compare DLAM with, on
//
//   L(W, z, a, u) = R(z_L; y) + sum_l Omega_l(W_l)
//                   + nu/2 sum_{l<L} ( |z_l - q_l|^2 + |a_l - h_l(z_l)|^2 )
//                   + <u, z_L - q_L> + rho/2 |z_L - q_L|^2,       q_l = a_{l-1} W_l^T + 1 b_l^T,   a_0 = x:
//
// a backward pass over a_l, z_l, b_l, W_l, a forward pass over W_l, b_l, z_l, a_l, and a step of u. z and b
// are exact, W and a take gradient steps whose sizes are found by line search.
#pragma once

#include "sweeps/layers.h"

namespace torchbcd {

using DladmmProblem = Problem<DLADMMOptions>;

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
  double population = 0;  // rows of all processes
  DladmmVariables current, next;
  std::vector<at::Tensor> scratch;  // three, as large as the widest layer's
  std::vector<double> theta;        // of the last sweep, 0 where there was none

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  static DladmmRows allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight,
                             const std::vector<AffineMap>& maps);
};

/// The terms of L over the rows of all processes; the multiplier's is part of the last affine penalty.
ObjectiveTerms objective_terms(const DladmmProblem& problem, const std::vector<AffineMap>& maps,
                               const DladmmRows& rows);

using DladmmSweep = SweepOf<DladmmProblem, DladmmRows>;

/// The report, with the theta that the next sweep starts from. What a block or a step's size takes of all
/// rows is summed over the processes that have them.
DladmmReport sweep_dladmm(const DladmmSweep& sweep);

}  // namespace torchbcd
