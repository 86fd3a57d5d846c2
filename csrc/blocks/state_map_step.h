// The block of a state map's own parameters, scale, shift and slope: one step towards the minimiser, by how
// the layer behind it fits.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "blocks/relaxed_states.h"
#include "blocks/state_map.h"
#include "linalg/affine_map.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// What the block minimises over the map's parameters, |R - (V - V_0) W^T|^2 + ratio' |R' - (V - V_0)|^2 for
/// each skip of V, with V = map(U) and V_0 its value now. W is that of the layer behind V.
struct StateMapProblem {
  const StateMap& map;
  Trained trained;
  at::Tensor weight;
  double weight_scale;  // a power of two that the gradient is multiplied by on its way
  at::Tensor u, v;      // v: V_0
  at::Tensor residual;  // R
  const std::vector<SkipReader>& skips;
  double damping;     // of the step, relative to the curvatures
  double relaxation;  // part of the line search's length
};

struct StateMapMoved {
  StateMap map;
  at::Tensor change;                       // V - V_0
  at::Tensor residual, sums;               // R - (V - V_0) W^T; its rows' sums of squares, weighed
  std::vector<at::Tensor> skip_residuals;  // R' - (V - V_0)
  at::Tensor start, end;                   // the objective's rows before and after, weighed
};

/// The negative gradient, each entry over its curvature h plus alpha, which is `damping` times the mean h of
/// scales and shifts, and h itself of a slope; as far as `relaxation` times the minimiser of the linearised
/// problem plus alpha |step|^2 along it. A step that curvature makes raise the objective is halved, and at
/// last dropped: then nothing is returned. `sums`: R's rows' sums of squares, weighed.
std::optional<StateMapMoved> state_map_step(const StateMapProblem& problem, const at::Tensor& sums,
                                            const Totals& totals);

}  // namespace torchbcd
