// Activation functions, one struct each, in functors/activations/: sigma(u), its derivative (one of them,
// where there are several), and the prox that the U update of a 3-splitting needs,
//
//     prox(a, b, gamma) = argmin over u of  1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2,
//
// the *global* minimiser (Zeng et al., eq. 33), for gamma > 0. Those without a closed form are solved in
// float64 whatever T is, to a few units in the last place. Each also states
//
//     name, parameters     what users call it by, and the numbers that it takes
//     monotone()           whether it never falls, which its parameters may decide
//     continuous           whether it has no jump
//     differentiable       whether it has a derivative everywhere; otherwise it gives left_derivative and
//                          right_derivative
//     piecewise_linear     whether on_one_piece(u, w) tells if two points lie on one line of its graph
//     has_preimages        whether it knows, where it is monotone and continuous, the ends of the intervals
//                          {u : sigma(u) >= t}, by preimage_low, and {u : sigma(u) <= t}, by preimage_high:
//                          +inf and -inf where an interval is empty, -inf and +inf where it is the whole
//                          line.
#pragma once

#include <variant>

#include "functors/activations/hardsigmoid.h"
#include "functors/activations/hardtanh.h"
#include "functors/activations/identity.h"
#include "functors/activations/leaky_relu.h"
#include "functors/activations/polynomial.h"
#include "functors/activations/relu.h"
#include "functors/activations/sigmoid.h"
#include "functors/activations/sign.h"
#include "functors/activations/silu.h"
#include "functors/activations/tanh.h"
#include "functors/host_device.h"

namespace torchbcd::functors {

// All there are: a new one is a header like these and a name here.
using AnyActivation =
    std::variant<Identity, ReLU, LeakyReLU, Sigmoid, Tanh, HardTanh, HardSigmoid, Sign, SiLU, Polynomial>;

template <typename T, typename Activation>
TORCHBCD_HOST_DEVICE T left_derivative(const Activation& activation, T u) {
  if constexpr (Activation::differentiable) {
    return static_cast<T>(activation.derivative(u));
  } else {
    return activation.left_derivative(u);
  }
}

template <typename T, typename Activation>
TORCHBCD_HOST_DEVICE T right_derivative(const Activation& activation, T u) {
  if constexpr (Activation::differentiable) {
    return static_cast<T>(activation.derivative(u));
  } else {
    return activation.right_derivative(u);
  }
}

}  // namespace torchbcd::functors
