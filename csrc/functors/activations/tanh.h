// sigma(u) = tanh(u), a sigmoid from -1 to 1.
//
// Its prox is argmin over u of f(u) = 1/2 (tanh(u) - a)^2 + gamma/2 (u - b)^2: a non-convex problem with up
// to two local minima between b and atanh(a), of which the lower is returned.
//
// With t = tanh(u), f'(u) = h(u) + gamma (u - b), h(u) = (t - a)(1 - t^2), h'(u) = r(t) where
//
//     r(t) = (1 + 2 a t - 3 t^2)(1 - t^2),
//
// a quartic with the roots -1, 1 and t_-, t_+ = (a -+ sqrt(a^2 + 3))/3. Moving u from outside the interval
// between b and atanh(a) towards it lowers both terms of f, so a minimiser lies inside. Let tanh(b) <= a (the
// other case is its mirror image). There t <= a < t_+, r > 0 on (t_-, a], and on (-1, t_-) r is negative with
// one minimum, at t_q. So f'' = r + gamma is, from b on, positive, then negative, then positive: f has at
// most one minimiser on either side of t_q, and each is the only sign change of f' on a bracket found below.
#pragma once

#include "functors/activations/tanh_trials.h"
#include "functors/traits.h"

namespace torchbcd::functors {

struct TanhProblem {
  double a, b, gamma;

  TORCHBCD_HOST_DEVICE double quartic(double t) const { return (1 + t * (2 * a - 3 * t)) * (1 - t * t); }

  // f'(u) and f''(u), with 1 - tanh^2 free of cancellation.
  TORCHBCD_HOST_DEVICE ValueAndSlope derivatives(double u) const {
    const double e = std::exp(-2 * std::fabs(u));
    const double magnitude = (1 - e) / (1 + e);
    const double t = u < 0 ? -magnitude : magnitude;
    const double square_sech = 4 * e / ((1 + e) * (1 + e));
    return {(t - a) * square_sech + gamma * (u - b), (1 + t * (2 * a - 3 * t)) * square_sech + gamma};
  }

  TORCHBCD_HOST_DEVICE double objective(double u) const {
    const double gap = std::tanh(u) - a;
    return 0.5 * gap * gap + 0.5 * gamma * (u - b) * (u - b);
  }

  TORCHBCD_HOST_DEVICE_CALL double root(double low, double high, double start) const {
    const TanhProblem problem = *this;
    return bracketed_root([problem](double u) { return problem.derivatives(u); }, low, high, start);
  }

  // Where f'' = r(t) + gamma changes sign on (low, high), as u; r falls there where `falling`.
  TORCHBCD_HOST_DEVICE_CALL double inflection(double low, double high, bool falling) const {
    const TanhProblem p = *this;
    const double sign = falling ? -1 : 1;
    return std::atanh(bracketed_root(
        [p, sign](double t) {
          const double slope = 2 * p.a + t * (-8 + t * (-6 * p.a + 12 * t));
          return ValueAndSlope{sign * (p.quartic(t) + p.gamma), sign * slope};
        },
        low, high, 0.5 * (low + high)));
  }

  // The minimiser where tanh(b) <= a.
  TORCHBCD_HOST_DEVICE_CALL double solve() const {
    const double t_b = std::tanh(b);
    double high = b + (1 + a) / gamma;  // -h <= (a - t) <= a + 1
    if (a < 1) {
      const double c = std::atanh(a);
      high = c < high ? c : high;
    }
    if (!(high > b)) {
      return b;
    }
    const double t_minus = (a - std::sqrt(a * a + 3)) / 3;
    // r(t) = (1 - 3 t^2)(1 - t^2) + 2 a t (1 - t^2), and the two parts are at least -1/3 and -4 |a|/(3
    // sqrt(3)).
    const bool clearly_convex = gamma >= 0.3334 + 0.7699 * std::fabs(a) || t_b >= t_minus;
    if (clearly_convex) {
      return root(b, high, b);
    }
    const TanhProblem p = *this;
    const double t_q = bracketed_root(
        [p](double t) {
          return ValueAndSlope{2 * p.a + t * (-8 + t * (-6 * p.a + 12 * t)), -8 + t * (-12 * p.a + 36 * t)};
        },
        -1, t_minus, 0.5 * (t_minus - 1));
    if (quartic(t_q) + gamma >= 0 || t_b >= t_q) {
      return root(b, high, b);  // f' changes sign once
    }
    const double u_q = std::atanh(t_q);
    const bool rising_at_q = derivatives(u_q).value >= 0;
    // The minimiser between b and t_q.
    bool has_left = false;
    double left = b;
    if (rising_at_q) {
      has_left = true;
      left = root(b, u_q, b);
    } else if (quartic(t_b) + gamma > 0) {
      const double crest = inflection(t_b, t_q, /*falling=*/true);
      if (derivatives(crest).value >= 0) {
        has_left = true;
        left = root(b, crest, b);
      }
    }
    // The one beyond t_q.
    double valley = u_q;
    if (rising_at_q) {
      valley = inflection(t_q, t_minus, /*falling=*/false);
      if (derivatives(valley).value >= 0) {
        return left;
      }
    }
    const double right = root(valley, high, 0.5 * (valley + high));
    return has_left && objective(left) <= objective(right) ? left : right;
  }
};

struct Tanh : ActivationTraits {
  static constexpr const char* name = "tanh";
  static constexpr bool has_preimages = true;

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T m = expm1_nonpositive(-2 * std::fabs(u));
    const T magnitude = -m / (2 + m);
    return u < 0 ? -magnitude : magnitude;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T t = value(u);
    return (T(1) - t) * (T(1) + t);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{a, b, gamma}));
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    return TanhTrials(p).first<3>();
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial second_trial(const ProxProblem& p, const Trial& first) const {
    return TanhTrials(p).second<3>(first);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial last_trial(const ProxProblem& p) const {
    return TanhTrials(p).last();
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    if (!(std::isfinite(p.a) && std::isfinite(p.b))) {
      return p.a + p.b;  // NaN in, NaN out
    }
    const bool mirrored = std::tanh(p.b) > p.a;
    const double solution = TanhProblem{mirrored ? -p.a : p.a, mirrored ? -p.b : p.b, p.gamma}.solve();
    return mirrored ? -solution : solution;
  }

  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= -1 ? -kInfinity : (t >= 1 ? kInfinity : 0.5 * std::log1p(2 * t / (1 - t)));
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const { return preimage_low(t); }
};

}  // namespace torchbcd::functors
