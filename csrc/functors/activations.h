// Activation functions, one struct each, in functors/activations/: a name that users call it by, sigma(u),
// its derivative (one of them, where there are several; then slopes(u) are those from the left and from the
// right), and the prox that the U update of a 3-splitting needs,
//
//     prox(a, b, gamma) = argmin over u of  1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2,
//
// the *global* minimiser (Zeng et al., eq. 33), for gamma > 0. Those without a closed form are solved in
// float64 whatever T is, to a few units in the last place. What else one states is in functors/traits.h.
#pragma once

#include <variant>

#include "functors/activations/elu.h"
#include "functors/activations/gelu.h"
#include "functors/activations/hardshrink.h"
#include "functors/activations/hardsigmoid.h"
#include "functors/activations/hardswish.h"
#include "functors/activations/hardtanh.h"
#include "functors/activations/identity.h"
#include "functors/activations/leaky_relu.h"
#include "functors/activations/logsigmoid.h"
#include "functors/activations/mish.h"
#include "functors/activations/polynomial.h"
#include "functors/activations/relu.h"
#include "functors/activations/sigmoid.h"
#include "functors/activations/sign.h"
#include "functors/activations/silu.h"
#include "functors/activations/sine.h"
#include "functors/activations/softplus.h"
#include "functors/activations/softshrink.h"
#include "functors/activations/softsign.h"
#include "functors/activations/tanh.h"
#include "functors/activations/tanhshrink.h"
#include "functors/activations/threshold.h"

namespace torchbcd::functors {

// All there are: a new one is a header like these and a name here.
using AnyActivation = std::variant<Identity, ReLU, LeakyReLU, Sigmoid, Tanh, HardTanh, HardSigmoid, Sign,
                                   SiLU, Polynomial, GELU, TanhGELU, ELU, Softplus, Mish, HardSwish,
                                   LogSigmoid, Softsign, Tanhshrink, Softshrink, Hardshrink, Threshold, Sine>;

inline bool is_identity(const AnyActivation& activation) {
  return std::visit([](const auto& f) { return f.identity; }, activation);
}

inline bool is_discrete(const AnyActivation& activation) {
  return std::visit([](const auto& f) { return f.discrete; }, activation);
}

// Whether u and w lie on one line of a piecewise linear activation's graph.
template <typename T, typename Activation>
TORCHBCD_HOST_DEVICE bool on_one_piece(const Activation& activation, T u, T w) {
  if constexpr (requires { activation.piece(u); }) {
    return activation.piece(u) == activation.piece(w);
  } else {
    return activation.derivative(u) == activation.derivative(w);
  }
}

}  // namespace torchbcd::functors
