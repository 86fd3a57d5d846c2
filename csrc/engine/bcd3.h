// Zeng et al., Algorithm 2: block coordinate descent on the 3-splitting formulation.
#pragma once

#include <memory>
#include <vector>

#include "engine/network.h"

namespace torchbcd {

/// The W block of the first layer over bound data, whose inputs never change: factored once, kept.
struct InputBlockCache {
  bool enabled = false;
  double ratio = 0;  // alpha_weight / rho it was factored for
  std::unique_ptr<WeightBlock> block;
};

/// One sweep: from (maps, rows.current) to (next_maps, rows.next), touching nothing else, so that a
/// sweep which throws has changed nothing. Blocks in the paper's order: V_N, U_N, W_N, then V_i,
/// U_i, W_i for i = N - 1, ..., 1. Leaves every residual but the first layer's in rows.next.
void sweep_three_splitting(const Network& network, const std::vector<AffineMap>& maps,
                           const std::vector<AffineMap>& next_maps, RowSet& rows, InputBlockCache& cache,
                           const BlockObserver& observer);

}  // namespace torchbcd
