// Skip connections of an MLP.
#pragma once

#include <cstdint>

namespace torchbcd {

/// x + branch(x): a layer's products plus the values of an earlier one. Layers count from 0.
struct Skip {
  int64_t from = -1;      // the layer whose values they are; -1: the inputs
  int64_t to = 0;         // the last layer of the branch
  bool activated = true;  // sigma(U) of `from`, rather than U
};

}  // namespace torchbcd
