// The block of a normalisation's scale and shift: one step towards the minimiser, by how the layer behind it
// fits.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "blocks/relaxed_states.h"
#include "blocks/state_map.h"
#include "linalg/affine_map.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// What the block minimises over scale and shift, |R - (V - V_0) W^T|^2 + ratio' |R' - (V - V_0)|^2 for each
/// skip of V, with V = map(U) and V_0 its value now. W is that of the layer behind V.
struct NormalizationProblem {
  const StateMap& map;
  Trained trained;
  at::Tensor weight;
  double weight_scale;  // a power of two that the gradient is multiplied by on its way
  at::Tensor u, v;      // v: V_0
  at::Tensor residual;  // R
  const std::vector<SkipReader>& skips;
  double damping;     // of the step, relative to the mean of the curvatures
  double relaxation;  // part of the line search's length
};

struct NormalizationMoved {
  at::Tensor scale, shift;                 // undefined where the map has none
  at::Tensor change;                       // V - V_0
  at::Tensor residual, sums;               // R - (V - V_0) W^T; its rows' sums of squares, weighed
  std::vector<at::Tensor> skip_residuals;  // R' - (V - V_0)
  at::Tensor start, end;                   // the objective's rows before and after, weighed
};

/// The negative gradient, each entry over its curvature plus `damping` times their mean, as far as
/// `relaxation` times the minimiser of the linearised, damped problem along it. A step that curvature makes
/// raise the objective is halved, and at last dropped: then nothing is returned. `sums`: R's rows' sums of
/// squares, weighed.
std::optional<NormalizationMoved> normalization_step(const NormalizationProblem& problem,
                                                     const at::Tensor& sums, const Totals& totals);

}  // namespace torchbcd
