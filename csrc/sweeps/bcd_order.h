// The order of the blocks of a sweep of BCD.
#pragma once

#include <cstddef>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/options.h"

namespace torchbcd {

/// The variable 'V', 'U' or 'W' of a layer.
struct BcdBlock {
  char variable;
  size_t layer;

  bool operator==(const BcdBlock&) const = default;
};

/// The blocks that options.order() names, one after the other, of a net of `depth` layers. Throws a
/// ValueError where it is no order of all of them.
///
/// "paper": V_N, U_N, W_N, then V_i, U_i, W_i for i = N - 1, ..., 1, with V and U of a layer inner_sweeps
/// times; "states_first": all V and U, inner_sweeps times over, and then all W; "layer_parallel": all V, then
/// all U, inner_sweeps times over, and then all W; "joint", of Algorithm 1: all V as one block, then all W;
/// or a list of blocks, "V2 U2 W2 V1 U1 W1". Algorithm 1 has no U.
TORCHBCD_API std::vector<BcdBlock> blocks_in_order(const BCDOptions& options, size_t depth);

}  // namespace torchbcd
