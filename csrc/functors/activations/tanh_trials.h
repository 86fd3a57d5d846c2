// The prox of tanh in lanes (functors/trial.h). Notation and facts are those of tanh.h: tanh(b) <= a after
// mirroring; f' <= 0 at b; r >= 0 on [t_-, t_+], t_- < 0; as u grows from b, f' is concave up to t_q < t_-,
// where r is least, then convex up to where r is greatest. So from b on f' has up to two roots at which it
// rises:
//
//   left   on the concave part. There Newton's iteration from b stays below the root and rises to it. f'' > 0
//   up to
//          it: where f'' <= 0 at b, or at an iterate, there is none.
//   right  where f'(u_-) <= 0, u_- = artanh(t_-), it is the one root beyond u_-, and f' rises from there up
//   to a and
//          is positive from a on. Else the last root before u_- if there is one, on the convex part: Newton's
//          iteration from u_- falls to it, and there is none where it meets f'' <= 0.
//
// f is convex from b on where gamma exceeds the bound of -r, or t_b >= t_-: the root is then one, found like
// the right one from b. The first trial finds the right one, and settles what has no left one. The second
// finds the left one and compares. Where the right one is not known well enough, it lies beyond u_q and
// before u_-, so that f > 1/2 (a - t_-)^2 + gamma/2 (u_q - b)^2 there, which the left one may be below.
//
// A root is taken as found where the last step is small, both of the root and of the interval on which f''
// keeps its size. Most iterations are made in the data's type, the last one in float64.
#pragma once

#include <cmath>
#include <type_traits>

#include "functors/elementary.h"
#include "functors/trial.h"

namespace torchbcd::functors {

// f of the mirrored problem, in arithmetic of C.
template <typename C>
struct TanhCurve {
  C a, b, gamma;

  struct Point {
    C t, square_sech;
  };

  TORCHBCD_HOST_DEVICE static Point point(C u) {
    const C e = exp_nonpositive(-2 * std::fabs(u));
    const C half_cosh = 1 / (1 + e);
    const C magnitude = (1 - e) * half_cosh;
    return {u < 0 ? -magnitude : magnitude, 4 * e * half_cosh * half_cosh};
  }

  struct Derivatives {
    C first, second, third;
  };

  TORCHBCD_HOST_DEVICE Derivatives derivatives(C u) const { return derivatives(u, point(u)); }
  TORCHBCD_HOST_DEVICE Derivatives derivatives(C u, const Point& at) const {
    const C t = at.t;
    return {(t - a) * at.square_sech + gamma * (u - b), slope(at),
            (2 * a + t * (-8 + t * (-6 * a + 12 * t))) * at.square_sech};
  }

  TORCHBCD_HOST_DEVICE C slope(const Point& at) const {
    return (1 + at.t * (2 * a - 3 * at.t)) * at.square_sech + gamma;
  }

  TORCHBCD_HOST_DEVICE C twice_objective(C u) const {
    const C gap = point(u).t - a;
    return gap * gap + gamma * (u - b) * (u - b);
  }
};

// A search for the right root. `falling` is 1 where it is Newton's from u_-, else 0: Halley's in a bracket.
template <typename C>
struct RightRoot {
  Bracketed<C> at;
  C falling;
  C missing;  // > 0 once there is none

  TORCHBCD_HOST_DEVICE RightRoot step(const TanhCurve<C>& curve) const {
    const auto f = curve.derivatives(at.u);
    const HalleyStep<C> step(f.first, f.second, falling > 0 ? C(0) : f.third);
    const C bent = f.second > 0 ? C(0) : falling;
    return {at.moved(f.first, step.length, step.divisor), falling, missing + bent};
  }
};

struct TanhTrials {
  static constexpr int kSteps = 4;

  double sign;
  TanhCurve<double> curve;
  double t_b, square_sech_b, t_minus;

  TORCHBCD_HOST_DEVICE explicit TanhTrials(const ProxProblem& p) {
    const auto at_b = TanhCurve<double>::point(p.b);
    sign = at_b.t > p.a ? -1 : 1;
    curve = {sign * p.a, sign * p.b, p.gamma};
    t_b = sign * at_b.t;
    square_sech_b = at_b.square_sech;
    t_minus = (curve.a - std::sqrt(curve.a * curve.a + 3)) * (1.0 / 3);
  }

  TORCHBCD_HOST_DEVICE static double artanh(double t) { return 0.5 * log_positive((1 + t) / (1 - t)); }

  struct Polished {
    double u;
    double sure;             // 1 where u is a root at which f' rises
    double twice_objective;  // there, where it is sure
  };

  // A last step, of Halley's iteration where `halley` is 1, of Newton's where it is 0.
  TORCHBCD_HOST_DEVICE Polished polished(double u, double halley) const {
    const auto at = curve.point(u);
    const auto f = curve.derivatives(u, at);
    const double step = HalleyStep<double>(f.first, f.second, halley * f.third).length;
    const double next = u + step;
    const double gap = at.t - curve.a + at.square_sech * step;
    const double away = next - curve.b;
    return {next, found_by(step, next, f.second, f.third), gap * gap + curve.gamma * away * away};
  }

  // Close to the root beyond `from`, where tanh is t and its slope s: the minimiser of the problem with tanh
  // replaced by its tangent there. Far right tanh bends, but is 1 - 2 x with the slope 4 x, x = e^-2u: the
  // root is then that of 8 x^2 + 4 (a - 1) x = gamma (u - b), with u - b as the tangent has it.
  TORCHBCD_HOST_DEVICE double guess(double from, double t, double s) const {
    const double a = curve.a, b = curve.b, gamma = curve.gamma;
    const double tangent = from + (s * (a - t) - gamma * (from - b)) / (s * s + gamma);
    const double pull = gamma * (tangent - b);
    const double over = a - 1;
    const double root = std::sqrt(over * over + 2 * pull);
    const double x = over > 0 ? pull / (2 * (over + root)) : 0.25 * (root - over);
    return x < 0.2 ? -0.5 * log_positive(x > 1e-300 ? x : 1e-300) : tangent;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first() const {
    const double a = curve.a, b = curve.b, gamma = curve.gamma;
    const double after_minus = t_b >= t_minus ? 0.0 : 1.0;
    const double bent = gamma >= 0.3334 + 0.7699 * std::fabs(a) ? 0.0 : after_minus;  // 0: convex from b on
    const double u_minus = artanh(t_minus);
    const double slope_minus = 1 - t_minus * t_minus;
    const double at_minus = (t_minus - a) * slope_minus + gamma * (u_minus - b);
    const double falling = at_minus > 0 ? bent : 0.0;
    const double from = bent > 0 ? u_minus : b;
    // f' >= gamma (u - b) - (a - t_b) max tanh' from b on
    const double bound = b + (a - t_b) * (b >= 0 ? square_sech_b : 1.0) / gamma;
    const double high = falling > 0 ? u_minus : bound;
    const double low = falling > 0 ? b : from;
    const double guessed = guess(from, bent > 0 ? t_minus : t_b, bent > 0 ? slope_minus : square_sech_b);
    const double below = guessed < high ? guessed : high;
    const double inside = below > low ? below : low;

    const TanhCurve<T> same = {static_cast<T>(a), static_cast<T>(b), static_cast<T>(gamma)};
    RightRoot<T> search = {
        {static_cast<T>(falling > 0 ? u_minus : inside), static_cast<T>(low), static_cast<T>(high)},
        static_cast<T>(falling),
        T(0)};
    TORCHBCD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      search = search.step(same);
    }
    const Polished found = polished(search.at.u, 1);
    const double rising = curve.slope({t_b, square_sech_b}) > 0 ? bent : 0.0;  // a left one may exist
    const double when_found = rising > 0 ? kOneOfTwo : kSettled;
    const double other = rising > 0 ? kOtherUnknown : kUnsettled;
    const double when_lost = falling > 0 ? other : kUnsettled;
    const double when_missing = rising > 0 ? kOtherMissing : kUnsettled;
    const double verdict = found.sure > 0 ? when_found : when_lost;
    return {sign * found.u, static_cast<double>(search.missing) > 0 ? when_missing : verdict};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial second(const Trial& right) const {
    const double a = curve.a, b = curve.b, gamma = curve.gamma;
    const double known = right.verdict == kOneOfTwo ? 1.0 : 0.0;
    const double right_u = sign * right.u;
    const double limit = known > 0 ? right_u : kFarRight;

    const TanhCurve<T> same = {static_cast<T>(a), static_cast<T>(b), static_cast<T>(gamma)};
    T u = static_cast<T>(b + (a - t_b) * square_sech_b / curve.slope({t_b, square_sech_b}));
    T missing = 0;
    TORCHBCD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const auto f = same.derivatives(u);
      const T bent = f.second > 0 ? T(0) : T(1);
      const T past = u > static_cast<T>(limit) ? T(1) : T(0);
      missing = missing + bent + past;
      const T next = u - f.first / f.second;
      u = missing > 0 ? static_cast<T>(b) : next;
    }
    const Polished found = polished(u, 0);
    const double present = static_cast<double>(missing) > 0 ? 0.0 : 1.0;
    const double sure = found.sure * present;

    // What to be below: f at the right one, or what f exceeds there, or nothing. u_q from below by Newton's
    // iteration on r', which is negative and concave up to t_q.
    double t_q = -1;
    TORCHBCD_UNROLL
    for (int k = 0; k < 3; ++k) {
      t_q -= (2 * a + t_q * (-8 + t_q * (-6 * a + 12 * t_q))) / (-8 + t_q * (-12 * a + 36 * t_q));
    }
    const double away = artanh(t_q) - b;
    const double at_least = away > 0 ? away : 0;
    const double apart = a - t_minus;
    const double least = apart * apart + gamma * at_least * at_least;
    const double other = right.verdict == kOtherUnknown ? least : kFarRight;
    const double bar = known > 0 ? curve.twice_objective(right_u) : other;
    const double lower = sure * (found.twice_objective <= bar ? 1.0 : 0.0);
    const double right_wins = known * (1 - lower) * (sure + (1 - present));  // no left one, or a higher one
    return {lower > 0 ? sign * found.u : right.u, lower + right_wins > 0 ? kSettled : kUnsettled};
  }

 private:
  static constexpr double kFarRight = 1e30;
};

}  // namespace torchbcd::functors
