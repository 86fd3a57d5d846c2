// What the sweeps work on: the layers of an MLP and the split variables of a set of rows.
//
// Layers count from 0 here: layer l maps the rows v[l - 1] (x for l = 0) to u[l] = v[l - 1] W^T + b
// and v[l] = sigma(u[l]). The papers' W_i, U_i, V_i are those of layer i - 1, and their N is
// layers.size().
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/blocks.h"
#include "functors/activations.h"
#include "functors/losses.h"
#include "functors/regularizers.h"
#include "torchbcd/export.h"
#include "torchbcd/options.h"
#include "torchbcd/reports.h"

namespace torchbcd {

/// Penalties of one layer (Zeng et al., eq. 5, with a weight of its own for every quadratic term).
struct LayerOptions {
  double gamma = 1;                          // of gamma/2 |V - sigma(U)|^2
  double rho = 1;                            // of rho/2 |U - W V - b|^2
  double alpha = 1;                          // proximal weight of the states: U, and V of the output layer
  double alpha_weight = 1;                   // proximal weight of W and b
  functors::Regularizer weight_regularizer;  // r(W)
  functors::Regularizer state_regularizer;   // s(V)
};

/// The formulation: (V, U, W) with both penalties (eq. 5), or (V, W) with V_i = sigma(W_i V_{i-1}) (eq. 3).
enum class Splitting { kTwo = 2, kThree = 3 };

struct Layer {
  functors::Activation activation;
  LayerOptions options;
};

/// The weight of a row's loss: `weight`, divided by the rows that a mean is over where `mean` is set.
struct LossWeight {
  double weight = 1;
  bool mean = false;

  double of_row(int64_t population) const { return mean ? weight / static_cast<double>(population) : weight; }
};

struct Network {
  const char* name = "";  // the trainer, for errors
  std::vector<Layer> layers;
  functors::Loss loss;
  Splitting splitting = Splitting::kThree;
  UpdateOrder order = UpdateOrder::kPaper;
  int64_t inner_sweeps = 1;
  LossWeight loss_weight;
  SumOverRanks sum_over_ranks;  // where the rows lie in several processes

  size_t depth() const { return layers.size(); }
};

/// The split variables of some rows, one tensor (n, d_l) a layer. With two splittings U is no variable; u[l]
/// then holds the product v[l - 1] W_l^T + b_l, and residual[l] is not used.
struct SplitVariables {
  std::vector<at::Tensor> u;
  std::vector<at::Tensor> v;
  std::vector<at::Tensor> residual;  // u[l] - v[l - 1] W_l^T - b_l

  SplitVariables narrow(int64_t begin, int64_t size) const;
  static SplitVariables allocate(int64_t rows, const std::vector<AffineMap>& maps);
};

/// Which of the residuals are those of the current point. A sweep leaves the one of the first layer
/// to be computed when it is wanted: its inputs are data, so it costs the same then and cannot
/// drift.
enum class Residuals { kStale, kAllButFirst, kCurrent };

/// Rows of data with their split variables: those of the last complete sweep, and those being
/// computed.
struct RowSet {
  at::Tensor x;           // (n, d_0)
  at::Tensor y;           // (n, d_N)
  at::Tensor row_weight;  // (n, 1), or (1, 1) where all rows weigh the same
  // The rows that a mean is over: n, or all bound rows where these are some of them; of all processes.
  int64_t population = 0;
  SplitVariables current;
  SplitVariables next;
  Residuals residuals = Residuals::kStale;

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  at::Tensor row_weights(int64_t begin, int64_t size) const {
    return row_weight.size(0) == 1 ? row_weight : row_weight.narrow(0, begin, size);
  }
  const at::Tensor& input(size_t layer) const { return layer == 0 ? x : current.v[layer - 1]; }
};

/// The weight of a row's loss in the objective.
inline double row_loss_weight(const Network& network, const RowSet& rows) {
  return network.loss_weight.of_row(rows.population);
}

/// "torchbcd.BCD: layer 2 of 4, W block": how errors name a trainer's block, layers counted from 1.
std::string block_name(const char* trainer, size_t depth, const char* block, size_t layer);

/// Calls f(begin, size) on consecutive chunks of rows, small enough for a chunk's arrays to stay in
/// cache.
void for_each_chunk(int64_t rows, const std::function<void(int64_t begin, int64_t size)>& f);

/// out[l] = V_{l-1} W_l^T + 1 b_l^T for every layer, with V_{-1} = x and V_l = states[l]. A last state, where
/// there is one, is not read.
void products_out(const at::Tensor& x, const std::vector<at::Tensor>& states,
                  const std::vector<AffineMap>& maps, const std::vector<at::Tensor>& out);

/// A forward pass of x: products as above, and states[l] = sigma_l(products[l]) for as many layers as
/// `states` holds.
void forward_out(const at::Tensor& x, const std::vector<AffineMap>& maps,
                 const std::vector<functors::Activation>& activations,
                 const std::vector<at::Tensor>& products, const std::vector<at::Tensor>& states);

/// current := one forward pass of x, where every term of the objective but the loss and the regularisers is
/// zero; with the states projected onto the bounds that a regulariser sets.
void forward_pass(const Network& network, const std::vector<AffineMap>& maps, RowSet& rows);

/// Recomputes the residuals of `current` (with two splittings: the products) that are not those of the
/// current point.
void refresh_residuals(const Network& network, const std::vector<AffineMap>& maps, RowSet& rows);

/// Numbers as a tensor of doubles on the CPU, and back.
at::Tensor from_doubles(const std::vector<double>& values);
std::vector<double> to_doubles(const at::Tensor& t);

/// Replaces each number by its sum over the processes, which meet on `device`.
void sum_over_ranks(const SumOverRanks& sum, const at::Device& device, const std::vector<double*>& numbers);

/// The objective of `rows`, those of all processes together, at `maps` and `variables`, whose residuals are
/// those of that point.
ObjectiveTerms objective_terms(const Network& network, const std::vector<AffineMap>& maps, const RowSet& rows,
                               const SplitVariables& variables);

}  // namespace torchbcd
