// The scale of an untrained net's outputs, which is that of its inputs and not of its targets.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/output_loss.h"
#include "linalg/affine_map.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// Where the outputs p (n, d') of a last layer spread far more than its targets do, or more than logits need
/// to, makes `map` that with the outputs c + t (p - mean of p), of the spread that they should have: about
/// the targets' mean, or zero for logits. Returns whether it has, which takes that their loss is lower so;
/// each part of a loss by itself, and all of it for the rows of all processes, by their weights.
bool match_output_scale(const at::Tensor& p, const at::Tensor& y, const OutputLoss& loss,
                        const AffineMap& map, const Totals& totals);

}  // namespace torchbcd
