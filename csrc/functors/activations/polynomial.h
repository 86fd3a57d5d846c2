// A polynomial activation p(u) = c_0 + c_1 u + ... + c_m u^m and its prox,
// argmin over u of f(u) = 1/2 (p(u) - a)^2 + gamma/2 (u - b)^2.
//
// f' is a polynomial of degree 2 m - 1. Its real roots are found all together, from the linear one among its
// derivatives upwards: between neighbouring roots of a derivative a polynomial is monotone, so each interval
// holds at most one root, which a bracketed Newton iteration finds. The lowest local minimum of f is the
// global one, since f grows without bound.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct Polynomial : ActivationTraits {
  static constexpr const char* name = "polynomial";
  static constexpr int kMaxDegree = 8;
  static constexpr int kMaxCritical = 2 * kMaxDegree - 1;  // degree of f'
  static constexpr ParameterCount parameters = {.fewest = 1,
                                                .most = kMaxDegree + 1,
                                                .optional = false,
                                                .must = "a polynomial must have 1 to 9 coefficients"};

  int degree = 0;
  double coefficients[kMaxDegree + 1] = {};  // of 1, u, u^2, ...

  const char* set(const double* values, int count) {
    bool finite = true;
    for (int k = 0; k < count; ++k) {
      finite = finite && std::isfinite(values[k]);
      coefficients[k] = values[k];
      degree = values[k] != 0 ? k : degree;
    }
    return finite ? nullptr : "coefficients must be finite";
  }

  bool monotone() const { return false; }  // not in general

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    T result = static_cast<T>(coefficients[degree]);
    for (int k = degree - 1; k >= 0; --k) {
      result = result * u + static_cast<T>(coefficients[k]);
    }
    return result;
  }

  // Of c[0] + c[1] u + ... + c[d] u^d.
  TORCHBCD_HOST_DEVICE static ValueAndSlope horner(const double* c, int d, double u) {
    double value = c[d];
    double slope = 0;
    for (int k = d - 1; k >= 0; --k) {
      slope = slope * u + value;
      value = value * u + c[k];
    }
    return {value, slope};
  }

  TORCHBCD_HOST_DEVICE ValueAndSlope value_and_slope(double u) const {
    return horner(coefficients, degree, u);
  }

  TORCHBCD_HOST_DEVICE double derivative(double u) const { return value_and_slope(u).slope; }

  TORCHBCD_HOST_DEVICE double objective(double u, double a, double b, double gamma) const {
    const double gap = value(u) - a;
    return 0.5 * gap * gap + 0.5 * gamma * (u - b) * (u - b);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(solve(a, b, gamma));
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(double a, double b, double gamma) const {
    if (!(std::isfinite(a) && std::isfinite(b))) {
      return a + b;  // NaN in, NaN out
    }
    // level[k] holds the coefficients of the k-th derivative of f' = (p - a) p' + gamma (u - b).
    double level[kMaxCritical][kMaxCritical + 1] = {};
    for (int i = 0; i <= degree; ++i) {
      const double c = coefficients[i] - (i == 0 ? a : 0);
      for (int j = 1; j <= degree; ++j) {
        level[0][i + j - 1] += c * j * coefficients[j];
      }
    }
    level[0][0] -= gamma * b;
    level[0][1] += gamma;
    int top = degree > 1 ? 2 * degree - 1 : 1;
    while (top > 1 && level[0][top] == 0) {
      --top;
    }
    for (int k = 1; k < top; ++k) {
      for (int j = 0; j <= top - k; ++j) {
        level[k][j] = (j + 1) * level[k - 1][j + 1];
      }
    }
    // The minimiser is a root of f' (Fujiwara's bound) at which f is at most f(b).
    double bound = 0;
    for (int k = 1; k <= top; ++k) {
      const double term = std::pow(std::fabs(level[0][top - k] / level[0][top]), 1.0 / k);
      bound = term > bound ? term : bound;
    }
    const double reach = std::fabs(value(b) - a) / std::sqrt(gamma);
    const double low = std::fmax(-2 * bound, b - reach);
    const double high = std::fmin(2 * bound, b + reach);
    double roots[kMaxCritical + 1];
    int count = 0;
    double best = b;
    double least = objective(b, a, b, gamma);
    for (int k = top - 1; k >= 0; --k) {
      double found[kMaxCritical + 1];
      int found_count = 0;
      const double* c = level[k];
      const int d = top - k;
      const Polynomial p = *this;
      const auto f = [c, d, k, p, a, b, gamma](double u) {
        ValueAndSlope result = horner(c, d, u);
        if (k == 0) {  // f' itself, by its factors: expanded, it loses digits
          const ValueAndSlope at = p.value_and_slope(u);
          result.value = (at.value - a) * at.slope + gamma * (u - b);
        }
        return result;
      };
      double left = low;
      double at_left = f(left).value;
      for (int i = 0; i <= count; ++i) {
        const double right = i < count ? roots[i] : high;
        const double at_right = f(right).value;
        const bool crosses = (at_left <= 0 && at_right >= 0) || (at_left >= 0 && at_right <= 0);
        if (crosses && found_count <= kMaxCritical) {
          const double sign = at_left < 0 || at_right > 0 ? 1 : -1;
          const double root = bracketed_root(
              [&f, sign](double u) {
                const ValueAndSlope at = f(u);
                return ValueAndSlope{sign * at.value, sign * at.slope};
              },
              left, right, 0.5 * (left + right));
          found[found_count++] = root;
          if (k == 0) {
            const double candidate = objective(root, a, b, gamma);
            if (candidate < least) {
              least = candidate;
              best = root;
            }
          }
        }
        left = right;
        at_left = at_right;
      }
      count = found_count;
      for (int i = 0; i < count; ++i) {
        roots[i] = found[i];
      }
    }
    return best;
  }
};

}  // namespace torchbcd::functors
