// One sweep of RelaxedBCD.
#pragma once

#include "engine/relaxed.h"

namespace torchbcd {

/// What a sweep reads and writes: from `maps` to `next_maps`, with everything else in `rows`.
struct RelaxedSweepState {
  const char* name;
  const std::vector<functors::Activation>& activations;
  const std::vector<RelaxedLayer>& layers;
  const functors::Loss& loss;
  double loss_weight;  // of a row
  bool clamped;        // whether U_N is the target: the squared loss of a linear output
  const std::vector<AffineMap>& maps;
  const std::vector<AffineMap>& next_maps;
  RelaxedRows& rows;
  bool restored;  // whether rows.slack is that of persistent variables, rather than zero
  RelaxedProgress& progress;
  const BlockObserver& observer;

  size_t depth() const { return maps.size(); }
};

/// rows.p and rows.v are those of `maps`; with `restored`, rows.slack too.
RelaxedReport sweep_relaxed(const RelaxedSweepState& state);

}  // namespace torchbcd
