// What the elementwise kernels apply to each element: an activation, a loss, their proxes, and the
// block updates of Algorithm 2 as sums of quadratics and one prox. CPU and CUDA kernels only loop
// over these.
//
// The block updates are written around the current point ("residual form"): what is computed is the
// change, which shrinks as the sweeps converge, so that rounding errors shrink with it.
#pragma once

#include "functors/host_device.h"
#include "functors/regularizers.h"

namespace torchbcd::functors {

template <typename T, typename ActivationFunctor>
struct ActivationValue {
  ActivationFunctor activation;

  TORCHBCD_HOST_DEVICE T operator()(T u) const { return activation.value(u); }
};

template <typename T, typename LossFunctor>
struct LossValue {
  LossFunctor loss;

  TORCHBCD_HOST_DEVICE T operator()(T y, T v) const { return loss.value(v, y); }
};

// The prox of an activation (of target a) or of a loss (of target a = y).
template <typename T, typename Functor>
struct Prox {
  Functor functor;
  T gamma;

  TORCHBCD_HOST_DEVICE T operator()(T a, T b) const { return functor.prox(a, b, gamma); }
};

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
template <typename T, typename ActivationFunctor>
struct AuxiliaryUpdate {
  ActivationFunctor activation;
  T gamma, rho, alpha;

  TORCHBCD_HOST_DEVICE AuxiliaryPair<T> operator()(T v, T u, T residual) const {
    const T quadratic = rho + alpha;
    const T centre = u - (rho / quadratic) * residual;
    const T updated = activation.prox(v, centre, quadratic / gamma);
    return {updated, residual + (updated - u)};
  }
};

// The V block of the output layer (Zeng et al., Algorithm 2) is
//
//   v' = argmin over x of  weight l(x; y) + gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2 + s(x),
//
// where the two quadratics make one, (gamma + alpha)/2 (x - c)^2, with this centre c.
template <typename T, typename ActivationFunctor>
struct OutputCentre {
  ActivationFunctor activation;
  T gamma, alpha;

  TORCHBCD_HOST_DEVICE T operator()(T v, T u) const {
    return v + (gamma / (gamma + alpha)) * (activation.value(u) - v);
  }
};

// argmin over x of  weight row_weight l(x; y) + curvature/2 (x - c)^2 + s(x).
template <typename T, typename LossFunctor>
struct LossUpdate {
  LossFunctor loss;
  Regularizer regularizer;
  T weight, curvature;

  TORCHBCD_HOST_DEVICE T operator()(T y, T centre, T row_weight) const {
    const LossUpdate self = *this;
    const T w = weight * row_weight;
    return regularizer.with_loss(curvature, centre,
                                 [self, y, w](T k, T c) { return self.loss.prox(y, c, k / w); });
  }
};

// argmin over u of  t r(u) + 1/2 (u - x)^2.
template <typename T>
struct RegularizerProx {
  Regularizer regularizer;
  T t;

  TORCHBCD_HOST_DEVICE T operator()(T x) const { return regularizer.prox(x, t); }
};

template <typename T, typename ActivationFunctor>
struct ActivationDerivative {
  ActivationFunctor activation;

  TORCHBCD_HOST_DEVICE T operator()(T u) const { return activation.derivative(u); }
};

}  // namespace torchbcd::functors
