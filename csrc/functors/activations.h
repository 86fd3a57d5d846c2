// Activation functions: sigma(u), its derivative (one of them, where there are several), and the prox that
// the U update of a 3-splitting needs,
//
//     prox(a, b, gamma) = argmin over u of  1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2,
//
// the *global* minimiser (Zeng et al., eq. 33), for gamma > 0. Those without a closed form are solved in
// float64 whatever T is, to a few units in the last place.
//
// The monotone ones (quasilinear, as Wang et al., Assumption 1, have it) also know the ends of the intervals
// {u : sigma(u) >= t}, by preimage_low, and {u : sigma(u) <= t}, by preimage_high: +inf and -inf where an
// interval is empty, -inf and +inf where it is the whole line.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>
#include <variant>

#include "functors/host_device.h"
#include "functors/polynomial.h"
#include "functors/scalar.h"
#include "functors/tanh.h"

namespace torchbcd::functors {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Identity {
  static constexpr const char* name = "identity";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T) const {
    return T(1);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return weighted_mean(a, b, gamma);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t; }
};

struct ReLU {
  static constexpr const char* name = "relu";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(0) : u;  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > T(0) ? T(1) : T(0);
  }

  // Zeng et al., Lemma 9. For b < 0 the minimiser of the right branch, (a + gamma b) / (1 + gamma),
  // beats the left one, b, when gamma b >= -(sqrt(gamma (gamma + 1)) - gamma) a; multiplied by
  // sqrt(gamma (gamma + 1)) + gamma that is a + kappa b >= 0, free of cancellation.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    using std::sqrt;
    const T kappa = gamma + sqrt(gamma) * sqrt(gamma + T(1));
    const T right = weighted_mean(a, b, gamma);
    // Selections rather than branches: the loops over this vectorise.
    const T positive = right < T(0) ? T(0) : right;
    const T negative = a + kappa * b >= T(0) ? right : b;
    return b < T(0) ? negative : positive;
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t > 0 ? t : -kInfinity; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t < 0 ? -kInfinity : t; }
};

// max(u, 0) + slope min(u, 0), for any slope: each branch has its own minimiser, and the lower one counts.
struct LeakyReLU {
  static constexpr const char* name = "leaky_relu";

  double slope = 0.01;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? static_cast<T>(slope) * u : u;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return u > T(0) ? T(1) : static_cast<T>(slope);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T s = static_cast<T>(slope);
    const T on_right = weighted_mean(a, b, gamma);
    // The mean of a/s and b with weights s^2 and gamma, by the same choice of form.
    const T square = s * s;
    const T on_left = gamma < square ? a / s + (b - a / s) * (gamma / (square + gamma))
                                     : b + s * (a - s * b) / (square + gamma);
    const T right = on_right < T(0) ? T(0) : on_right;
    const T left = on_left > T(0) ? T(0) : on_left;
    // Half the difference of the two objectives, as products of differences and sums: squares of large
    // numbers that nearly agree would cancel.
    const T difference = (right - s * left) * ((right - a) + (s * left - a)) +
                         gamma * (right - left) * ((right - b) + (left - b));
    return difference <= T(0) ? right : left;
  }

  // For slope > 0, where it is monotone.
  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return t < 0 ? t / slope : t; }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return t < 0 ? t / slope : t; }
};

struct Tanh {
  static constexpr const char* name = "tanh";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    using std::tanh;
    return tanh(u);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T t = value(u);
    return (T(1) - t) * (T(1) + t);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(
        tanh_prox(static_cast<double>(a), static_cast<double>(b), static_cast<double>(gamma)));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return inverse(t); }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return inverse(t); }

 private:
  TORCHBCD_HOST_DEVICE static double inverse(double t) {
    return t <= -1 ? -kInfinity : (t >= 1 ? kInfinity : 0.5 * std::log1p(2 * t / (1 - t)));
  }
};

// 1 / (1 + e^-u) = (1 + tanh(u/2)) / 2, so with u = 2 w the prox is that of tanh:
// 1/4 [ 1/2 (tanh(w) - (2 a - 1))^2 + 16 gamma / 2 (w - b/2)^2 ].
struct Sigmoid {
  static constexpr const char* name = "sigmoid";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    using std::exp;
    return T(1) / (T(1) + exp(-u));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T s = value(u);
    return s * (T(1) - s);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(2 * tanh_prox(2 * static_cast<double>(a) - 1, 0.5 * static_cast<double>(b),
                                        16 * static_cast<double>(gamma)));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const { return inverse(t); }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return inverse(t); }

 private:
  TORCHBCD_HOST_DEVICE static double inverse(double t) {
    return t <= 0 ? -kInfinity : (t >= 1 ? kInfinity : std::log(t / (1 - t)));
  }
};

// The registry of activations: a new one is a struct like these, a name here and a row in the tests.
using Activation = std::variant<Identity, ReLU, LeakyReLU, Sigmoid, Tanh, Polynomial>;

// Whether an activation's type knows its preimages.
template <typename ActivationFunctor>
inline constexpr bool has_preimages = !std::is_same_v<ActivationFunctor, Polynomial>;

// Whether an activation is linear on each side of its kinks, so that its derivative at two points tells
// whether one lies between them.
template <typename ActivationFunctor>
inline constexpr bool is_piecewise_linear =
    std::is_same_v<ActivationFunctor, Identity> || std::is_same_v<ActivationFunctor, ReLU> ||
    std::is_same_v<ActivationFunctor, LeakyReLU>;

}  // namespace torchbcd::functors
