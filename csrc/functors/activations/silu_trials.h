// The prox of SiLU in lanes (functors/trial.h). In the notation of silu.h, it is settled where
//
//   f is convex on the whole line: gamma >= 0.0765 + a/2 for a >= 0, gamma >= max(0.0765, -kDip a) for a < 0.
//   Of -r =
//     (a - sigma) sigma'' - sigma'^2, the bound for sigma'' > 0 is that of case R1. Where sigma'' < 0, on the
//     right, sigma'^2 > 1 > sigma |sigma''|, and on the left sigma < 0: -r <= -kDip a. Since f(u) <= f(b),
//     the minimiser is within |sigma(b) - a| / sqrt(gamma) of b, on the side to which f falls.
//   b >= u_m, and f' changes sign once on the interval of case R1 or R2.
//
// Those are most problems of a net; all others are left to solve().
#pragma once

#include <cmath>

#include "functors/elementary.h"
#include "functors/trial.h"

namespace torchbcd::functors {

// f and its derivatives, in arithmetic of C.
template <typename C>
struct SiLUCurve {
  C a, b, gamma;

  struct Sigma {
    C value, slope, second, third;
  };

  TORCHBCD_HOST_DEVICE static Sigma sigma(C u) {
    const C e = exp_nonpositive(-std::fabs(u));
    const C large = 1 / (1 + e);
    const C small = e * large;
    const C s = u < 0 ? small : large;
    const C c = u < 0 ? large : small;
    const C t = s - c;
    const C p = s * c;
    return {u * s, s * (1 + u * c), p * (2 - u * t), p * (u * (C(1.5) * t * t - C(0.5)) - 3 * t)};
  }

  struct Derivatives {
    C first, second, third;

    TORCHBCD_HOST_DEVICE C step() const { return HalleyStep<C>(first, second, third).length; }
  };

  TORCHBCD_HOST_DEVICE Derivatives derivatives(C u) const {
    const Sigma at = sigma(u);
    const C gap = at.value - a;
    return {gap * at.slope + gamma * (u - b), at.slope * at.slope + gap * at.second + gamma,
            3 * at.slope * at.second + gap * at.third};
  }
};

struct SiLUTrial {
  static constexpr double kLowest = -1.2784645427610738;  // u_m
  static constexpr double kLeast = -0.2784645427610738;   // m
  static constexpr double kSteepest = 1.09984;            // > sigma'
  static constexpr double kDip = 0.036915;                // > -sigma''
  static constexpr int kSteps = 4;

  template <typename T>
  TORCHBCD_HOST_DEVICE static Trial first(const ProxProblem& problem) {
    const double a = problem.a, b = problem.b, gamma = problem.gamma;
    const SiLUCurve<double> curve = {a, b, gamma};
    const auto at_b = SiLUCurve<double>::sigma(b);
    const double gap = a - at_b.value;
    const double bound = 0.0765 + 0.5 * (a > 0 ? a : 0.0);
    const double enough = gamma >= bound ? 1.0 : 0.0;
    const double convex = gamma >= -kDip * a ? enough : 0.0;
    const double radius = std::fabs(gap) / std::sqrt(gamma);
    const double falls = gap * at_b.slope;  // -f'(b)
    // R1, upwards from b; R2, downwards. The preimage of a is below a - m for a >= 0, and sigma(u) <= u for u
    // >= 0.
    const double reach = kSteepest * gap / gamma;
    const double preimage = a >= 0 ? a - kLeast : 0.0;
    const double up = reach > preimage - b ? preimage : b + reach;
    const double high_r1 = up > b ? up : b;
    const double under = a > 0 ? (a < b ? a : b) : kLowest;
    const double low_r2 = b + reach > under ? b + reach : under;
    const double high_r = gap >= 0 ? high_r1 : b;
    const double low_r = gap >= 0 ? b : low_r2;
    const double high = convex > 0 ? (falls > 0 ? b + radius : b) : high_r;
    const double low = convex > 0 ? (falls > 0 ? b : b - radius) : low_r;
    const double r1 = b >= 0 ? 1.0 : enough;
    const double r2 = a >= -27.66 ? 1.0 : 0.0;
    const double right_of_lowest = (b >= kLowest ? 1.0 : 0.0) * (gap >= 0 ? r1 : r2);
    const double known = convex > 0 ? 1.0 : right_of_lowest;

    const double tangent = b + at_b.slope * gap / (at_b.slope * at_b.slope + gamma);
    const double below = tangent < high ? tangent : high;
    const SiLUCurve<T> same = {static_cast<T>(a), static_cast<T>(b), static_cast<T>(gamma)};
    Bracketed<T> search = {static_cast<T>(below > low ? below : low), static_cast<T>(low),
                           static_cast<T>(high)};
    TORCHBCD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const auto f = same.derivatives(search.u);
      search = search.moved(f.first, f.step(), f.second);
    }
    const auto f = curve.derivatives(search.u);
    const double step = f.step();
    const double next = search.u + step;
    return {next, known * found_by(step, next, f.second, f.third) > 0 ? kSettled : kUnsettled};
  }
};

}  // namespace torchbcd::functors
