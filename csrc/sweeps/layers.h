// What the sweeps share: forward passes, chunks of rows, the names of blocks, and what blocks know.
//
// Layers count from 0 in the code: layer l maps the rows v[l - 1] (x for l = 0) to u[l] = v[l - 1] W^T + b
// and v[l] = sigma(u[l]). The papers' W_i, U_i, V_i are those of layer i - 1, and their N is the depth. What
// users are told counts from 1, as the papers do: block_name and Blocks::done add the one.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "blocks/state_map.h"
#include "functors/activations.h"
#include "kernels/output_loss.h"
#include "linalg/affine_map.h"
#include "linalg/reductions.h"
#include "linalg/row_storage.h"
#include "sweeps/skips.h"
#include "torchbcd/options.h"
#include "torchbcd/reports.h"

namespace torchbcd {

/// "torchbcd.BCD: layer 2 of 4, W block": how errors name an optimizer's block.
std::string block_name(const char* optimizer, size_t depth, const char* block, size_t layer);

/// Calls f(begin, size) on consecutive chunks of rows, small enough for a chunk's arrays to stay in cache.
void for_each_chunk(int64_t rows, const std::function<void(int64_t begin, int64_t size)>& f);

/// Matrices (n, d_l), one a layer, not set; without one for the last layer where `with_last` is false. In
/// `storage` they have the name and the number of the layer, from 1.
std::vector<at::Tensor> allocate_states(int64_t n, const std::vector<AffineMap>& maps, bool with_last = true,
                                        const RowStorage& storage = {}, const std::string& name = {});

/// Arrays as large as the widest layer's states.
std::vector<at::Tensor> allocate_scratch(int64_t n, const std::vector<AffineMap>& maps, int count);

/// A view of one of those as a matrix of n rows.
at::Tensor scratch_view(const at::Tensor& scratch, int64_t n, int64_t columns);

/// out[l] = V_{l-1} W_l^T + 1 b_l^T for every layer, with V_{-1} = x and V_l = states[l]. A last state, where
/// there is one, is not read.
void products_out(const at::Tensor& x, const std::vector<at::Tensor>& states,
                  const std::vector<AffineMap>& maps, const std::vector<at::Tensor>& out);

/// A forward pass of x: products as above, with what skips add to them, and states[l] = map_l(products[l])
/// for as many layers as `states` holds.
void forward_out(const at::Tensor& x, const std::vector<AffineMap>& maps,
                 const std::vector<StateMap>& state_maps, const std::vector<Skip>& skips,
                 const std::vector<at::Tensor>& products, const std::vector<at::Tensor>& states);
/// The activations, with the slopes that `maps` have of them.
std::vector<functors::AnyActivation> activations_at(const std::vector<functors::AnyActivation>& activations,
                                                    const std::vector<AffineMap>& maps);
/// State maps that are activations alone.
std::vector<StateMap> state_maps_of(const std::vector<functors::AnyActivation>& activations);

/// sum_j w_j l(v_j; y_j) over the rows, whose weights are (n, 1), (1, 1), or undefined where they are one. In
/// float64, where it neither overflows nor loses what is small.
double weighted_loss(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss,
                     const at::Tensor& row_weight = {});

/// Sums the terms that are sums over rows over the processes that have them, in one message.
void add_up_over_rows(const Totals& totals, ObjectiveTerms& terms);

/// All of an objective that is neither data nor a variable.
template <typename Options>
struct Problem {
  const char* name;  // of the optimizer, for errors
  const std::vector<functors::AnyActivation>& activations;
  const std::vector<Skip>& skips;
  const OutputLoss& loss;
  const std::vector<Trained>& trained;  // of each layer
  const Options& options;
  const SumOverRanks& sum_over_ranks;  // where the rows lie in several processes

  size_t depth() const { return activations.size(); }
};

/// What a sweep reads and writes: from (maps, rows.current) to (next_maps, rows.next), touching nothing else
/// but scratch, so that a sweep which throws has changed nothing.
template <typename Problem, typename Rows>
struct SweepOf {
  const Problem& problem;
  const std::vector<AffineMap>& maps;
  const std::vector<AffineMap>& next_maps;
  Rows& rows;
  const BlockObserver& observer;
};

/// What the blocks of every sweep know.
template <typename Sweep>
class Blocks {
 protected:
  explicit Blocks(const Sweep& sweep)
      : sweep_(sweep), problem_(sweep.problem), options_(sweep.problem.options), rows_(sweep.rows) {}

  size_t depth() const { return problem_.depth(); }
  const functors::AnyActivation& activation(size_t l) const { return problem_.activations[l]; }
  at::Tensor scratch(int which, int64_t columns) const {
    return scratch_view(rows_.scratch[which], rows_.rows(), columns);
  }
  std::string where(const char* block, size_t l) const {
    return block_name(problem_.name, depth(), block, l);
  }
  // What a W block works on: the inputs, the map and where the next one goes, without what is frozen, which
  // is copied.
  struct TrainedLayer {
    at::Tensor input;
    AffineMap map, next;

    int64_t outputs() const { return map.weight.size(0); }
    bool bias() const { return map.bias.defined(); }
  };
  TrainedLayer trained_layer(size_t l, const at::Tensor& input) const {
    return trained_layer(l, sweep_.maps[l], input);
  }
  TrainedLayer trained_layer(size_t l, const AffineMap& from, const at::Tensor& input) const {
    const Trained trained = problem_.trained[l];
    const AffineMap next = affine_part(sweep_.next_maps[l]);
    if (!trained.all_affine(from)) {
      copy_map(affine_part(from), next);
    }
    return {trained.weight ? input : input.narrow(1, 0, 0), affine_part(trained_part(from, trained)),
            trained_part(next, trained)};
  }
  // Whether a layer has no W block; then it stays.
  bool frozen(size_t l) const {
    if (problem_.trained[l].affine()) {
      return false;
    }
    copy_map(affine_part(sweep_.maps[l]), sweep_.next_maps[l]);
    return true;
  }

  // Tells the observer, if there is one.
  void done(const char* block, size_t l) const {
    if (sweep_.observer) {
      sweep_.observer(block, l + 1);
    }
  }

  const Sweep& sweep_;
  decltype(Sweep::problem) problem_;
  decltype(Sweep::problem.options) options_;
  decltype(Sweep::rows) rows_;
};

}  // namespace torchbcd
