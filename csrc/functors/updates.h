// The elementwise block updates of Algorithm 2, as sums of quadratics and one prox.
//
// Each is written around the current point ("residual form"): what is computed is the change, which
// shrinks as the sweeps converge, so that rounding errors shrink with it.
#pragma once

#include "functors/host_device.h"

namespace torchbcd::functors {

template <typename T>
struct AuxiliaryPair {
  T u;
  T residual;
};

// The U block (Zeng et al., Algorithm 2). With p = u - residual the layer's product W V + b:
//
//   u' = argmin over x of  gamma/2 (v - sigma(x))^2 + rho/2 (x - p)^2 + alpha/2 (x - u)^2,
//   residual' = u' - p.
//
// The two quadratics of x make one, (rho + alpha)/2 (x - c)^2 with c = u - rho/(rho + alpha)
// residual.
template <typename ActivationFunctor, typename T>
TORCHBCD_HOST_DEVICE AuxiliaryPair<T> auxiliary_update(const ActivationFunctor& activation, T v,
                                                       T u, T residual, T gamma, T rho, T alpha) {
  const T quadratic = rho + alpha;
  const T centre = u - (rho / quadratic) * residual;
  const T updated = activation.prox(v, centre, quadratic / gamma);
  return {updated, residual + (updated - u)};
}

// The V block of the output layer (Zeng et al., Algorithm 2):
//
//   v' = argmin over x of  weight l(x; y) + gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2.
template <typename LossFunctor, typename ActivationFunctor, typename T>
TORCHBCD_HOST_DEVICE T output_update(const LossFunctor& loss, const ActivationFunctor& activation,
                                     T y, T v, T u, T weight, T gamma, T alpha) {
  const T quadratic = gamma + alpha;
  const T centre = v + (gamma / quadratic) * (activation.value(u) - v);
  return loss.prox(y, centre, quadratic / weight);
}

}  // namespace torchbcd::functors
