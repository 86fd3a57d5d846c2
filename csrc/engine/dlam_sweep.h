// One sweep of DLAM or mDLAM.
#pragma once

#include "engine/dlam.h"

namespace torchbcd {

/// What a sweep reads and writes: from (maps, rows.current) to (next_maps, rows.next), touching nothing else
/// but scratch, so that a sweep which throws has changed nothing.
struct DlamSweepState {
  const char* name;
  const std::vector<functors::Activation>& activations;
  const std::vector<DlamLayer>& layers;
  const DlamOptions& options;
  const functors::Loss& loss;
  double row_loss_weight;
  const std::vector<AffineMap>& maps;
  const std::vector<AffineMap>& previous_maps;
  const std::vector<AffineMap>& next_maps;
  DlamRows& rows;
  double eps;
  double omega;  // 0 where there is no previous sweep
  const BlockObserver& observer;

  size_t depth() const { return maps.size(); }
};

/// The report, with the theta and tau that the next sweep starts from.
DlamReport sweep_dlam(const DlamSweepState& state);

/// out = argmin over z of weight sum_rows w_row l(z; y) + rho/2 |z - q|^2 by FISTA, started from the better
/// of `z` and `q` in each row, and no worse than `z` in any. For losses with a Lipschitz gradient.
void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const functors::Loss& loss, double weight, double rho, const at::Tensor& out);

/// Whether fista_output takes a loss.
bool has_lipschitz_gradient(const functors::Loss& loss);

}  // namespace torchbcd
