// Activation functions: sigma(u), and the prox that the U update of a 3-splitting needs,
//
//     prox(a, b, gamma) = argmin over u of  1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2,
//
// the *global* minimiser (Zeng et al., eq. 33), for gamma > 0.
#pragma once

#include <cmath>
#include <variant>

#include "functors/host_device.h"

namespace torchbcd::functors {

struct Identity {
  static constexpr const char* name = "identity";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    // b + (a - b) / (1 + gamma) keeps full precision for every gamma and is exact where a == b.
    return b + (a - b) / (T(1) + gamma);
  }
};

struct ReLU {
  static constexpr const char* name = "relu";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(0) : u;  // a NaN stays a NaN
  }

  // Zeng et al., Lemma 9. For b < 0 the minimiser of the right branch, (a + gamma b) / (1 + gamma),
  // beats the left one, b, when gamma b >= -(sqrt(gamma (gamma + 1)) - gamma) a; multiplied by
  // sqrt(gamma (gamma + 1)) + gamma that is a + kappa b >= 0, free of cancellation.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    using std::sqrt;
    const T kappa = gamma + sqrt(gamma) * sqrt(gamma + T(1));
    const T right = b + (a - b) / (T(1) + gamma);
    // Selections rather than branches: the loops over this vectorise.
    const T positive = right < T(0) ? T(0) : right;
    const T negative = a + kappa * b >= T(0) ? right : b;
    return b < T(0) ? negative : positive;
  }
};

// The registry of activations: a new one is a struct above, a name here and a row in the tests.
using Activation = std::variant<Identity, ReLU>;

}  // namespace torchbcd::functors
