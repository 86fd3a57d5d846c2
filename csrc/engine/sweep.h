// One sweep of block coordinate descent, by either splitting.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/network.h"

namespace torchbcd {

/// The W block of the first layer over bound data, whose inputs never change: factored once, kept.
struct InputBlockCache {
  bool enabled = false;
  LayerOptions options;  // what it was made for
  std::unique_ptr<WeightBlock> block;
};

/// What a sweep reads and writes: from (maps, rows.current) to (next_maps, rows.next), touching nothing else,
/// so that a sweep which throws has changed nothing.
struct SweepState {
  const Network& network;
  const std::vector<AffineMap>& maps;
  const std::vector<AffineMap>& next_maps;
  RowSet& rows;
  InputBlockCache& cache;
  const BlockObserver& observer;

  const LayerOptions& options(size_t layer) const { return network.layers[layer].options; }
  const functors::Activation& activation(size_t layer) const { return network.layers[layer].activation; }
  std::string where(const char* block, size_t layer) const {
    return block_name(network.name, network.depth(), block, layer);
  }
  void done(const char* block, size_t layer) const {
    if (observer) {
      observer(block, layer);
    }
  }
};

/// Zeng et al., Algorithm 2, on the 3-splitting formulation. Blocks in the paper's order, V_N, U_N, W_N, then
/// V_i, U_i, W_i for i = N - 1, ..., 1, with V and U of a layer repeated inner_sweeps times; or all V and U,
/// inner_sweeps times over, and then all W. Returns which residuals it leaves in rows.next.
Residuals sweep_three_splitting(const SweepState& state);

/// Zeng et al., Algorithm 1, on the 2-splitting formulation: V_N, W_N, then V_i, W_i for i = N - 1, ..., 1,
/// or in the other order as above. Returns which products it leaves in rows.next.
Residuals sweep_two_splitting(const SweepState& state);

}  // namespace torchbcd
