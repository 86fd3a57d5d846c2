// sigma(u) = u / (1 + e^-u), which falls to -0.278... at -1.278... and rises from there.
//
// Its prox is argmin over u of f(u) = 1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2 with sigma(u) = u s(u),
// s(u) = 1 / (1 + e^-u): a non-convex problem with up to two local minima that may be global.
//
// With t = tanh(u/2) and p = s (1 - s) > 0,
//
//     sigma' = s (1 + u (1 - s)),   sigma'' = p (2 - u t),   sigma''' = p (u (3 t^2 - 1)/2 - 3 t).
//
// sigma falls from 0 (at -inf) to m = -0.278... at u_m = -1.278... and rises from there; sigma'' is even,
// positive on (-u_i, u_i), u_i = 2.399..., and least, -0.0369..., at -u_j and u_j = 3.435...; sigma''' > 0 on
// (-u_j, 0) and from u_j on, and < 0 elsewhere. f' = (sigma - a) sigma' + gamma (u - b) and f'' = r + gamma:
//
//     r = sigma'^2 + (sigma - a) sigma'',
//     r' = 3 sigma' sigma'' + (sigma - a) sigma''' = sigma''' (A - a),
//     A = sigma + 3 sigma' sigma''/sigma'''.
//
// A does not depend on a. It rises on (u_m, 0) from m to inf and on (u_j, inf) from -inf to inf, and falls on
// (-inf, -u_j) from 0 to -inf (by interval arithmetic, and by its asymptotes beyond 30). Hence:
//
// Right, b >= u_m. To u < u_m belongs v in (u_m, 0) with sigma(v) = sigma(u), and v - u_m < u_m - u, since
// sigma'' is larger at u_m + x than at u_m - x: v is nearer to b, and the minimiser is >= u_m, where sigma
// rises. Moving from outside the interval between b and the preimage c of a (u_m where a < m) towards it
// lowers both terms of f: beyond its ends f' has the sign that it has there.
//   R1. sigma(b) <= a, on [b, c]. There sigma <= a, so r falls on (u_m, q), where A(q) = a, q < 0, and rises
//       on (q, u_i), since sigma''' < 0 on (0, u_i). From u_i on, or from c if that comes first, r > 0.
//   R2. sigma(b) > a, on [max(u_m, c), b]. There sigma >= a, so r > 0 up to u_i, falls up to q > u_j, where
//       A(q) = a, and rises from q on. r >= 0 unless a < -27.66.
// Left, b < u_m.
//   L1. sigma(b) >= a. Points >= u_m lose to c or to u_m, where c is now the preimage left of u_m. On [b, c]
//       r falls up to q < -u_j, where A(q) = a, and rises up to -u_i, beyond which, or c, it is positive.
//   L2. sigma(b) < a. Left of u_m the minimiser is in [c, b], or (-inf, b] where a >= 0; there r > 0 up to
//       -u_i, and falls from -u_i on: f' rises, then falls, and is >= 0 at b, so it changes sign once. Right
//       of u_m sigma < a up to c, r is as in R1, and f'(u_m) > 0.
//
// So f'' is, from the left, positive, then negative, then positive, any of which may be missing: f has at
// most one minimiser on either side of q, and each is the only sign change of f' on a bracket found below. c
// need not be known: no bracket is harmed by an end beyond it.
#pragma once

#include "functors/activations/silu_trials.h"
#include "functors/traits.h"
#include "functors/wright_omega.h"

namespace torchbcd::functors {

struct SiLUProblem {
  static constexpr double kLowest = SiLUTrial::kLowest;      // u_m
  static constexpr double kLeast = SiLUTrial::kLeast;        // m
  static constexpr double kInflection = 2.3993572805154677;  // u_i
  static constexpr double kFlattest = 3.4358409935351107;    // u_j
  static constexpr double kDip = SiLUTrial::kDip;            // > -sigma''
  static constexpr double kSteepest = SiLUTrial::kSteepest;  // > sigma', so that sigma' > 1 - kSteepest
  static constexpr double kTwoOverE = 0.7357588823428847;    // |u| e^u <= 2/e e^(u/2) for u <= 0

  double a, b, gamma;

  // sigma and its first three derivatives, without the factor p in the last two.
  struct Jet {
    double value, slope, p, second, third, t;
  };

  TORCHBCD_HOST_DEVICE static Jet jet(double u) {
    const double e = std::exp(-std::fabs(u));
    const double large = 1 / (1 + e);
    const double small = e * large;
    const double s = u < 0 ? small : large;
    const double c = u < 0 ? large : small;
    const double t = s - c;
    return {u * s, s * (1 + u * c), s * c, 2 - u * t, u * (1.5 * t * t - 0.5) - 3 * t, t};
  }

  TORCHBCD_HOST_DEVICE static double sigma(double u) { return u / (1 + std::exp(-u)); }

  // f' and f''.
  TORCHBCD_HOST_DEVICE ValueAndSlope derivatives(double u) const {
    const Jet j = jet(u);
    const double gap = j.value - a;
    return {gap * j.slope + gamma * (u - b), j.slope * j.slope + gap * j.p * j.second + gamma};
  }

  // r' / p and its derivative.
  TORCHBCD_HOST_DEVICE ValueAndSlope bend(double u) const {
    const Jet j = jet(u);
    const double gap = j.value - a;
    const double second_slope = -j.t - 2 * u * j.p;
    const double third_slope = 1.5 * j.t * j.t - 0.5 + 6 * j.p * (u * j.t - 1);
    return {3 * j.slope * j.second + gap * j.third,
            3 * j.p * j.second * j.second + j.slope * (3 * second_slope + j.third) + gap * third_slope};
  }

  // sqrt(2 f), which no finite a and b overflow.
  TORCHBCD_HOST_DEVICE double distance(double u) const {
    return std::hypot(sigma(u) - a, std::sqrt(gamma) * (u - b));
  }

  TORCHBCD_HOST_DEVICE_CALL double root(double low, double high, double start) const {
    const SiLUProblem problem = *this;
    return bracketed_root([problem](double u) { return problem.derivatives(u); }, low, high, start);
  }

  // Where f'' changes sign on (low, high); it falls there where `falling`. Its slope is p times bend.
  TORCHBCD_HOST_DEVICE_CALL double inflection(double low, double high, bool falling) const {
    const SiLUProblem problem = *this;
    const double sign = falling ? -1 : 1;
    return bracketed_root(
        [problem, sign](double u) {
          const ValueAndSlope at = problem.bend(u);
          return ValueAndSlope{sign * problem.derivatives(u).slope, sign * jet(u).p * at.value};
        },
        low, high, 0.5 * (low + high), /*last_newton_step=*/1e-6);
  }

  // An interval with f'(high) >= 0 on which f'' falls and then rises.
  struct Stretch {
    double low, high;
    double q_low, q_high, q_start;  // around where it is least
    double fall, rise;              // f'' < 0 only between these
    bool downhill;                  // f'(low) <= 0
  };

  // The best minimiser inside a stretch; NaN where there is none, which `downhill` rules out.
  TORCHBCD_HOST_DEVICE_CALL double solve(const Stretch& s) const {
    const double start = weighted_mean(a, b, gamma);
    const double first = std::fmax(s.low, s.q_low);
    const double last = std::fmin(s.high, s.q_high);
    // f'' only falls, or only rises: f' changes sign once.
    if (!(first < last) || bend(first).value >= 0 || bend(last).value <= 0) {
      return root(s.low, s.high, start);
    }
    const SiLUProblem problem = *this;
    const double q = bracketed_root([problem](double u) { return problem.bend(u); }, first, last, s.q_start,
                                    /*last_newton_step=*/1e-6);
    const ValueAndSlope at_q = derivatives(q);
    double left = NAN;
    if (at_q.slope >= 0) {
      return s.downhill ? root(s.low, s.high, start) : left;
    }
    const bool rising_at_q = at_q.value >= 0;
    if (s.downhill) {
      if (rising_at_q) {
        left = root(s.low, q, s.low);
      } else {
        const double from = std::fmax(s.low, s.fall);
        if (derivatives(from).slope > 0) {
          const double crest = inflection(from, q, /*falling=*/true);
          if (derivatives(crest).value >= 0) {
            left = root(s.low, crest, s.low);
          }
        }
      }
    }
    double valley = q;
    if (rising_at_q) {
      const double to = std::fmin(s.high, s.rise);
      if (derivatives(to).slope <= 0) {
        return left;
      }
      valley = inflection(q, to, /*falling=*/false);
      if (derivatives(valley).value >= 0) {
        return left;
      }
    }
    const double right = root(valley, s.high, start);
    return distance(left) <= distance(right) ? left : right;  // a NaN on the left loses
  }

  // c <= a + 0.279 for a >= 0, since 0 <= u - sigma(u) <= -m there.
  TORCHBCD_HOST_DEVICE double beyond_preimage() const { return a >= 0 ? a - kLeast : 0; }

  TORCHBCD_HOST_DEVICE Stretch rising_stretch(double low, double high, bool downhill) const {
    return {low, high, kLowest, 0, -1.5 / (a + 1.4517), kLowest, kInflection, downhill};
  }

  // b >= u_m.
  TORCHBCD_HOST_DEVICE double right(double sigma_b) const {
    const double reach = kSteepest * std::fabs(sigma_b - a) / gamma;
    if (sigma_b <= a) {
      const double high = std::fmax(b, std::fmin(b + reach, beyond_preimage()));
      // (a - sigma) sigma'' - sigma'^2 <= 0.0765 + a/2, or 0.0765 where a < 0
      if (b >= 0 || gamma >= 0.0765 + 0.5 * std::fmax(a, 0.0)) {
        return root(b, high, weighted_mean(a, b, gamma));
      }
      return solve(rising_stretch(b, high, true));
    }
    const double least = std::fmin(b, std::fmax(a, kLowest));  // sigma(u) <= u where u >= 0
    const double low = std::fmax(b - reach, a > 0 ? least : kLowest);
    if (a >= -27.66 || gamma >= -kDip * a || b <= kFlattest) {
      return root(low, b, weighted_mean(a, b, gamma));
    }
    return solve({low, b, kFlattest, 4, 3.6, kInflection, b, true});
  }

  // b < u_m and sigma(b) >= a, which is negative.
  TORCHBCD_HOST_DEVICE double left_downwards() const {
    const double high = std::fmin(kLowest, b - (kSteepest - 1) * a / gamma);
    if (gamma >= -kDip * a) {
      return root(b, high, b);
    }
    // |A(u)| <= 4.16 |u| e^u where u <= -8, and -r <= -a |u| e^u
    const double q_low = std::fmin(-8.0, 2 * std::log(-a / (4.16 * kTwoOverE)));
    const double fall = 2 * std::log(gamma / (-a * kTwoOverE));
    return solve({b, high, q_low, -kFlattest, -4, fall, -kInflection, true});
  }

  // b < u_m and sigma(b) < a: the minimiser left of u_m.
  TORCHBCD_HOST_DEVICE double left_upwards(double sigma_b, double slope_b) const {
    // -sigma' is at most that at b where b < -u_i, and (a - sigma)(-sigma') <= (a - m) |u| e^u.
    const double reach =
        b < -kInflection ? (a - sigma_b) * -slope_b / gamma : (a - kLeast) * (kSteepest - 1) / gamma;
    double low = b - reach;
    double start = b;
    if (reach > 1) {
      low = std::fmax(low, std::fmin(b - 1, 2 * std::log(gamma / ((a - kLeast) * kTwoOverE))));
      start = b - wright_omega(std::log(reach));  // were sigma' e^u
    }
    return root(low, b, start);
  }

  TORCHBCD_HOST_DEVICE_CALL double solve() const {
    constexpr double kLinear = 38;  // from here on sigma(u) and u agree in float64
    if (a >= kLinear && b >= kLinear) {
      return weighted_mean(a, b, gamma);
    }
    const Jet at_b = jet(b);
    if (b >= kLowest) {
      return right(at_b.value);
    }
    if (at_b.value >= a) {
      return left_downwards();
    }
    const double root_gamma = std::sqrt(gamma);
    // Any u >= u_m is at a distance of at least `away`: for a >= 0, sigma(u) <= max(u, 0).
    const double gap = a - at_b.value;
    double away = root_gamma * (kLowest - b);
    if (a >= 0) {
      away = std::fmin(std::hypot(a, away), (a - b) * root_gamma / std::sqrt(1 + gamma));
    }
    if (away >= gap) {
      return left_upwards(at_b.value, at_b.slope);
    }
    // Where f' < 0, the one minimiser right of u_m is farther right.
    const double high = beyond_preimage();
    double other;
    if (high > 0 && derivatives(0).value < 0) {
      other = root(0, high, weighted_mean(a, b, gamma));
    } else {
      other = solve(rising_stretch(kLowest, high, false));
    }
    const double at_other = other == other ? distance(other) : gap;
    if (at_other < a) {  // sigma < 0 left of u_m
      return other;
    }
    const double left = left_upwards(at_b.value, at_b.slope);
    return other == other && at_other < distance(left) ? other : left;
  }
};

struct SiLU : ActivationTraits {
  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const {
    return SiLUTrial::first<T>(p);
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    if (!(std::isfinite(p.a) && std::isfinite(p.b))) {
      return (p.a - p.a) + (p.b - p.b);  // NaN
    }
    return SiLUProblem{p.a, p.b, p.gamma}.solve();
  }

  static constexpr const char* name = "silu";

  bool monotone() const { return false; }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T e = exp_nonpositive(-std::fabs(u));
    return u * ((u < 0 ? e : T(1)) / (1 + e));
  }

  // s (1 + u (1 - s)), where neither s nor 1 - s loses digits.
  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T e = exp_nonpositive(-std::fabs(u));
    const T large = T(1) / (T(1) + e);
    const T small = e * large;
    return u < T(0) ? small * (T(1) + u * large) : large * (T(1) + u * small);
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    return static_cast<T>(solve_by_trials<T>(*this, ProxProblem{a, b, gamma}));
  }
};

}  // namespace torchbcd::functors
