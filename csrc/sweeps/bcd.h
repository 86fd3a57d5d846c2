// Zeng et al., Algorithms 1 and 2: the objective, the variables of a set of rows, and one sweep from a point
// to the next.
#pragma once

#include <memory>

#include "blocks/least_squares.h"
#include "sweeps/layers.h"

namespace torchbcd {

using BcdProblem = Problem<BCDOptions>;

/// The split variables of some rows, one tensor (n, d_l) a layer. With two splittings U is no variable; u[l]
/// then holds the product v[l - 1] W_l^T + b_l, and residual[l] is not used.
struct BcdVariables {
  std::vector<at::Tensor> u;
  std::vector<at::Tensor> v;
  std::vector<at::Tensor> residual;  // u[l] - v[l - 1] W_l^T - b_l

  BcdVariables narrow(int64_t begin, int64_t size) const;
  /// Not set. Their names in `storage` begin with `set`.
  static BcdVariables allocate(int64_t rows, const std::vector<AffineMap>& maps,
                               const RowStorage& storage = {}, const std::string& set = {});
};

/// Which of the residuals are those of the current point. A sweep leaves the one of the first layer
/// to be computed when it is wanted: its inputs are data, so it costs the same then and cannot
/// drift.
enum class Residuals { kStale, kAllButFirst, kCurrent };

/// The W block of the first layer over bound data, whose inputs never change: factored once, kept.
struct InputBlockCache {
  bool enabled = false;
  WeightPenalties penalties;  // what it was made for
  Trained trained;
  bool primal = false;
  std::unique_ptr<WeightBlock> block;
};

/// Rows of data with their split variables: those of the last complete sweep, and those being
/// computed.
struct BcdRows {
  at::Tensor x;           // (n, d_0)
  at::Tensor y;           // (n, d_N)
  at::Tensor row_weight;  // (n, 1), or (1, 1) where all rows weigh the same
  // The rows that a mean is over: n, or all bound rows where these are some of them; of all processes.
  int64_t population = 0;
  BcdVariables current;
  BcdVariables next;
  Residuals residuals = Residuals::kStale;
  InputBlockCache cache;

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  at::Tensor row_weights(int64_t begin, int64_t size) const {
    return row_weight.size(0) == 1 ? row_weight : row_weight.narrow(0, begin, size);
  }
  const at::Tensor& input(size_t layer) const { return layer == 0 ? x : current.v[layer - 1]; }
};

/// current := one forward pass of x, where every term of the objective but the loss and the regularisers is
/// zero; with the states projected onto the bounds that a regulariser sets. Where `u` or `v` are given they
/// are the values instead.
void forward_pass(const BcdProblem& problem, const std::vector<AffineMap>& maps, BcdRows& rows,
                  const std::vector<at::Tensor>& u = {}, const std::vector<at::Tensor>& v = {});

/// Recomputes the residuals of `current` (with two splittings: the products) that are not those of the
/// current point.
void refresh_residuals(const BcdProblem& problem, const std::vector<AffineMap>& maps, BcdRows& rows);

/// The objective of `rows`, those of all processes together, at `maps` and `variables`, whose residuals are
/// those of that point.
ObjectiveTerms objective_terms(const BcdProblem& problem, const std::vector<AffineMap>& maps,
                               const BcdRows& rows, const BcdVariables& variables);

using BcdSweep = SweepOf<BcdProblem, BcdRows>;

/// One sweep by Algorithm 1, on the 2-splitting formulation, or Algorithm 2, on the 3-splitting one, as
/// options.splitting says, over the blocks in their order (sweeps/bcd_order.h). Returns which residuals it
/// leaves in rows.next.
Residuals sweep_bcd(const BcdSweep& sweep);

}  // namespace torchbcd
