// DLAM and mDLAM (Wang et al., Algorithms 1 and 2) on Problem 2,
//
//   F(W, z, a) = R(z_L; y) + sum_l Omega_l(W_l) + sum_l rho_l/2 |z_l - a_{l-1} W_l^T - 1 b_l^T|^2
//                subject to  |a_l - h_l(z_l)| <= eps  (l < L),      a_0 = x,
//
// in the order W_1, z_1, a_1, W_2, ..., W_L, z_L. q[l] = a[l-1] W_l^T + 1 b_l^T is kept with the variables:
// the products that move it serve gradients, conditions and F alike, so that F costs none.
#pragma once

#include "sweeps/layers.h"

namespace torchbcd {

using DlamProblem = Problem<DLAMOptions>;

struct DlamVariables {
  std::vector<at::Tensor> z;  // (n, d_l), every layer
  std::vector<at::Tensor> a;  // (n, d_l), every layer but the last
  std::vector<at::Tensor> q;  // (n, d_l), every layer

  static DlamVariables allocate(int64_t n, const std::vector<AffineMap>& maps);
};

/// Rows of data with their variables: those of the last complete sweep, those being computed, and those of
/// the sweep before that the extrapolations need.
struct DlamRows {
  at::Tensor x, y, row_weight;
  double population = 0;  // rows of all processes
  DlamVariables current, next;
  DlamVariables feasible;  // `current` made feasible for a smaller eps; allocated when first needed
  std::vector<at::Tensor> a_previous;  // a of the sweep before `current`
  at::Tensor q_previous;               // q[0] of the sweep before `current`
  std::vector<at::Tensor> trial_q;     // where a step's q goes until it is accepted
  std::vector<at::Tensor> scratch;     // four, as large as the widest layer's
  bool has_previous = false;
  double eps = 0;                  // that `current` is feasible for
  double nesterov = 0;             // s^k
  int64_t since_refresh = 0;       // sweeps since q was last computed from scratch
  std::vector<double> theta, tau;  // of the last sweep, 0 where there was none

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  static DlamRows allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight,
                           const std::vector<AffineMap>& maps);
};

/// Sets the current point: z for every layer and a for every hidden one as they are given, or, where a list
/// is empty, a = h(z) and z = q = a W^T + 1 b^T, which without either is a forward pass. For a given a, z is
/// what its block would make it, the point nearest to q with |a - h(z)| <= eps. Throws a ValueError, in the
/// problem's name, with the layer and the largest gap, unless |a_l - h_l(z_l)| <= eps up to rounding.
void start_from(const DlamProblem& problem, const std::vector<AffineMap>& maps,
                const std::vector<at::Tensor>& z, const std::vector<at::Tensor>& a, DlamRows& rows);

/// q of the current point from scratch.
void refresh_products(const std::vector<AffineMap>& maps, DlamRows& rows);

/// max over entries here of |a_l - h_l(z_l)|, less eps, for each hidden layer; -inf where there are no rows.
std::vector<double> gaps(const DlamProblem& problem, const DlamRows& rows);

/// The terms of F over the rows of all processes. An activation's term is the indicator of its box, 0 or
/// infinity, rounding of sigma(z) allowed for.
ObjectiveTerms objective_terms(const DlamProblem& problem, const std::vector<AffineMap>& maps,
                               const DlamRows& rows);

struct DlamSweep : SweepOf<DlamProblem, DlamRows> {
  const std::vector<AffineMap>& previous_maps;
  double eps;    // where it is smaller than rows.eps, z and a are made feasible first
  double omega;  // Nesterov's factor, 0 where there is no previous sweep
};

/// The report, with the theta and tau that the next sweep starts from. What decides a step is summed over the
/// processes that have the rows, so that all take the same one.
DlamReport sweep_dlam(const DlamSweep& sweep);

}  // namespace torchbcd
