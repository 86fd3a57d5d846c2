// Activation functions: sigma(u), its derivative (one of them, where there are several), and the prox that
// the U update of a 3-splitting needs,
//
//     prox(a, b, gamma) = argmin over u of  1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2,
//
// the *global* minimiser (Zeng et al., eq. 33), for gamma > 0. Those without a closed form are solved in
// float64 whatever T is, to a few units in the last place.
//
// The monotone and continuous ones (quasilinear, as Wang et al., Assumption 1, have it) also know the ends of
// the intervals {u : sigma(u) >= t}, by preimage_low, and {u : sigma(u) <= t}, by preimage_high: +inf and
// -inf where an interval is empty, -inf and +inf where it is the whole line.
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

// argmin over u of 1/2 (slope u - a)^2 + gamma/2 (u - b)^2: the mean of a/slope and b with weights slope^2
// and gamma, in the form of the two that rounds less.
template <typename T>
TORCHBCD_HOST_DEVICE T line_prox(T a, T b, T gamma, T slope) {
  const T square = slope * slope;
  return gamma < square ? a / slope + (b - a / slope) * (gamma / (square + gamma))
                        : b + slope * (a - slope * b) / (square + gamma);
}

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
    const T on_left = line_prox(a, b, gamma, s);
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

// The prox of an activation that is a line between two points and flat beyond them. Between them the
// minimiser is the line's, cut off there; with it competes b itself, where it lies beyond one of them, and
// nothing on the far side, which the other point already beats. The difference of the two objectives is
// written in products of differences, as for a leaky ReLU. `line` is the line's minimiser, `low` and `high`
// are the points.
template <typename T, typename ActivationFunctor>
TORCHBCD_HOST_DEVICE T clipped_prox(const ActivationFunctor& activation, T a, T b, T gamma, T line, T low,
                                    T high) {
  const T between = line < low ? low : (line > high ? high : line);
  const T value = activation.value(between);
  const T flat = activation.value(b);
  const T difference = (value - flat) * ((value - a) + (flat - a)) + gamma * (between - b) * (between - b);
  const bool beyond = b < low || b > high;
  return beyond && difference > T(0) ? b : between;
}

// u between two bounds, and the nearer bound beyond them.
struct HardTanh {
  static constexpr const char* name = "hardtanh";

  double low = -1;
  double high = 1;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T l = static_cast<T>(low);
    const T h = static_cast<T>(high);
    return u < l ? l : (u > h ? h : u);  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? T(1) : T(0);
  }

  // Which of its three pieces u lies on.
  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    return u <= static_cast<T>(low) ? -1 : (u >= static_cast<T>(high) ? 1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return clipped_prox(*this, a, b, gamma, weighted_mean(a, b, gamma), static_cast<T>(low),
                        static_cast<T>(high));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= low ? -kInfinity : (t > high ? kInfinity : t);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= high ? kInfinity : (t < low ? -kInfinity : t);
  }
};

// u/6 + 1/2 between 0 and 1.
struct HardSigmoid {
  static constexpr const char* name = "hardsigmoid";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T line = u / T(6) + T(0.5);
    return line < T(0) ? T(0) : (line > T(1) ? T(1) : line);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    return piece(u) == 0 ? T(1) / T(6) : T(0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE int piece(T u) const {
    return u <= T(-3) ? -1 : (u >= T(3) ? 1 : 0);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T line = line_prox(a - T(0.5), b, gamma, T(1) / T(6));
    return clipped_prox(*this, a, b, gamma, line, T(-3), T(3));
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= 0 ? -kInfinity : (t > 1 ? kInfinity : 6 * t - 3);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t >= 1 ? kInfinity : (t < 0 ? -kInfinity : 6 * t - 3);
  }
};

// -1 below zero and 1 from zero on. Nothing attains "just below zero"; the largest negative normal number
// stands for it.
struct Sign {
  static constexpr const char* name = "sign";

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    return u < T(0) ? T(-1) : (u >= T(0) ? T(1) : u);  // a NaN stays a NaN
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T) const {
    return T(0);
  }

  // b itself, or the nearest point on the other side: half the difference of the squares is 2 sign(b) a.
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const T across = b < T(0) ? T(0) : -smallest<T>();
    const T more = T(2) * value(b) * a + T(0.5) * gamma * b * b;
    return more < T(0) ? across : (more >= T(0) ? b : more);  // a NaN stays a NaN
  }

 private:
  template <typename T>
  TORCHBCD_HOST_DEVICE static constexpr T smallest() {
    return std::is_same_v<T, float> ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  }
};

// The registry of activations: a new one is a struct like these, a name here and a row in the tests.
using Activation =
    std::variant<Identity, ReLU, LeakyReLU, Sigmoid, Tanh, HardTanh, HardSigmoid, Sign, Polynomial>;

// Whether an activation's type knows its preimages.
template <typename ActivationFunctor>
inline constexpr bool has_preimages =
    !std::is_same_v<ActivationFunctor, Polynomial> && !std::is_same_v<ActivationFunctor, Sign>;

// Whether an activation's type tells the pieces of its graph apart by itself.
template <typename ActivationFunctor>
inline constexpr bool has_pieces =
    std::is_same_v<ActivationFunctor, HardTanh> || std::is_same_v<ActivationFunctor, HardSigmoid>;

// Whether an activation's graph is made of pieces of lines, and continuous.
template <typename ActivationFunctor>
inline constexpr bool is_piecewise_linear =
    std::is_same_v<ActivationFunctor, Identity> || std::is_same_v<ActivationFunctor, ReLU> ||
    std::is_same_v<ActivationFunctor, LeakyReLU> || has_pieces<ActivationFunctor>;

// Whether two points lie on one piece of a piecewise linear activation.
template <typename T, typename ActivationFunctor>
TORCHBCD_HOST_DEVICE bool on_one_piece(const ActivationFunctor& activation, T u, T w) {
  if constexpr (has_pieces<ActivationFunctor>) {
    return activation.piece(u) == activation.piece(w);
  } else {
    return activation.derivative(u) == activation.derivative(w);
  }
}

}  // namespace torchbcd::functors
