#include "sweeps/bcd.h"

#include "sweeps/bcd_blocks.h"

namespace torchbcd {

Residuals sweep_bcd(const BcdSweep& sweep) {
  const bool two = sweep.problem.options.splitting() == 2;
  if (two || sweep.rows.residuals == Residuals::kStale) {
    refresh_residuals(sweep.problem, sweep.maps, sweep.rows);
  }
  return two ? sweep_two_splittings(sweep) : sweep_three_splittings(sweep);
}

}  // namespace torchbcd
