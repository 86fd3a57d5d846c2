// A polynomial activation p(u) = c_0 + c_1 u + ... + c_m u^m and its prox,
// argmin over u of f(u) = 1/2 (p(u) - a)^2 + gamma/2 (u - b)^2.
//
// f' is a polynomial of degree 2 m - 1. Its real roots are found all together, from the linear one among its
// derivatives upwards: between neighbouring roots of a derivative a polynomial is monotone, so each interval
// holds at most one root, which a bracketed Newton iteration finds. The lowest local minimum of f is the
// global one, since f grows without bound. The same roots tell whether p is monotone: p' is lowest at a root
// of p''.
#pragma once

#include "functors/traits.h"

namespace torchbcd::functors {

struct Polynomial : ActivationTraits {
  static constexpr const char* name = "polynomial";
  static constexpr bool has_preimages = true;
  static constexpr bool bounded_slope = false;
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

  // Whether p' >= 0 everywhere. It is lowest where p'' = 0, and only an even degree of p' keeps it from
  // falling without bound. A p' that touches zero, as that of u^3 does, is not told apart from one that dips
  // below it by what rounding makes of its coefficients.
  bool monotone() const {
    if (degree == 0) {
      return true;
    }
    const int top = degree - 1;  // of p'
    if (top % 2 != 0 || !(coefficients[degree] > 0)) {
      return false;
    }
    // level[k] holds the coefficients of the k-th derivative of p'.
    double level[kMaxDegree][kMaxDegree] = {};
    for (int k = 0; k <= top; ++k) {
      for (int j = 0; j <= top - k; ++j) {
        level[k][j] = (j + 1) * (k == 0 ? coefficients[j + 1] : level[k - 1][j + 1]);
      }
    }
    // Of the roots of the derivatives too (Gauss, Lucas).
    const double bound = top > 0 ? root_bound(level[0], top) : 0;
    for (const double end : {-bound, bound}) {
      if (!std::isfinite(horner(level[0], top, end).value)) {
        return false;  // coefficients so far apart that float64 does not tell
      }
    }
    double roots[kMaxDegree + 1];
    int count = 0;
    for (int k = top - 1; k >= 1; --k) {
      double found[kMaxDegree + 1];
      const double* c = level[k];
      const int d = top - k;
      count = sign_changes([c, d](double u) { return horner(c, d, u); }, roots, count, -bound, bound, found);
      for (int i = 0; i < count; ++i) {
        roots[i] = found[i];
      }
    }
    roots[count++] = 0;
    for (int i = 0; i < count; ++i) {
      double terms = 0;
      for (int k = top; k >= 0; --k) {
        terms = terms * std::fabs(roots[i]) + std::fabs(level[0][k]);
      }
      constexpr double kRounding = 4 * std::numeric_limits<double>::epsilon();
      if (!(horner(level[0], top, roots[i]).value >= -kRounding * terms)) {
        return false;
      }
    }
    return true;
  }

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

  // Fujiwara's bound of the magnitude of its roots.
  TORCHBCD_HOST_DEVICE static double root_bound(const double* c, int d) {
    double bound = 0;
    for (int k = 1; k <= d; ++k) {
      const double term = std::pow(std::fabs(c[d - k] / c[d]), 1.0 / k);
      bound = term > bound ? term : bound;
    }
    return 2 * bound;
  }

  // The roots of f in [low, high], in order, where `between`, in order, are those of its derivative.
  template <typename Function>
  TORCHBCD_HOST_DEVICE_CALL static int sign_changes(const Function& f, const double* between, int count,
                                                    double low, double high, double* found) {
    int found_count = 0;
    double left = low;
    double at_left = f(left).value;
    for (int i = 0; i <= count; ++i) {
      const double right = i < count ? between[i] : high;
      const double at_right = f(right).value;
      const bool crosses = (at_left <= 0 && at_right >= 0) || (at_left >= 0 && at_right <= 0);
      if (crosses && found_count <= kMaxCritical) {
        const double sign = at_left < 0 || at_right > 0 ? 1 : -1;
        found[found_count++] = bracketed_root(
            [&f, sign](double u) {
              const ValueAndSlope at = f(u);
              return ValueAndSlope{sign * at.value, sign * at.slope};
            },
            left, right, 0.5 * (left + right));
      }
      left = right;
      at_left = at_right;
    }
    return found_count;
  }

  // Where p, monotone, is t. One that is no constant rises strictly, so that there is one such u.
  TORCHBCD_HOST_DEVICE_CALL double preimage(double t) const {
    if (!std::isfinite(t)) {
      return t;
    }
    double c[kMaxDegree + 1];
    for (int k = 0; k <= degree; ++k) {
      c[k] = coefficients[k] - (k == 0 ? t : 0);
    }
    const double bound = root_bound(c, degree);
    const int d = degree;
    return bracketed_root([&c, d](double u) { return horner(c, d, u); }, -bound, bound, 0,
                          /*last_newton_step=*/4e-16);
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return degree > 0 ? preimage(t) : (t <= coefficients[0] ? -kInfinity : kInfinity);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return degree > 0 ? preimage(t) : (t >= coefficients[0] ? kInfinity : -kInfinity);
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
    // The minimiser is a root of f' at which f is at most f(b).
    const double bound = root_bound(level[0], top);
    const double reach = std::fabs(value(b) - a) / std::sqrt(gamma);
    const double low = std::fmax(-bound, b - reach);
    const double high = std::fmin(bound, b + reach);
    double roots[kMaxCritical + 1];
    int count = 0;
    double best = b;
    double least = objective(b, a, b, gamma);
    for (int k = top - 1; k >= 0; --k) {
      double found[kMaxCritical + 1];
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
      count = sign_changes(f, roots, count, low, high, found);
      for (int i = 0; i < count; ++i) {
        roots[i] = found[i];
      }
    }
    for (int i = 0; i < count; ++i) {
      const double candidate = objective(roots[i], a, b, gamma);
      if (candidate < least) {
        least = candidate;
        best = roots[i];
      }
    }
    return best;
  }
};

}  // namespace torchbcd::functors
