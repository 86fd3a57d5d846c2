// The prox of tanh in lanes (functors/trial.h). Notation and facts are those of tanh.h: tanh(b) <= a after
// mirroring; f' <= 0 at b; r >= 0 on [t_-, t_+], t_- < 0; as u grows from b, f' is concave up to t_q < t_-,
// where r is least, then convex up to where r is greatest. So from b on f' has up to two roots at which it
// rises:
//
// The left one, on the concave part: there Newton's iteration from b stays below the root and rises to it.
// f'' > 0 up to it: where f'' <= 0 at b, or at an iterate, there is none.
//
// The right one: where f'(u_-) <= 0, u_- = artanh(t_-), it is the one root beyond u_-, and f' rises from
// there up to a and is positive from a on. Else the last root before u_- if there is one, on the convex part:
// Newton's iteration from u_- falls to it, and there is none where it meets f'' <= 0.
//
// f is convex from b on where gamma exceeds the bound of -r, or t_b >= t_-: the root is then one, found like
// the right one from b. The first trial finds the right one, and settles what has no left one, or none that
// could be lower. The second finds the left one and compares. Where the right one is not known well enough,
// it lies beyond u_q and before u_-, so that f > 1/2 (a - t_-)^2 + gamma/2 (u_q - b)^2 there, which the left
// one may be below. A last trial takes more steps: two roots of f' that are nearly one need them.
//
// A left one lies between b + s, s Newton's step from b, and u_q, where t_q < (t_- - 1)/2: with r = (t + 1)
// (t_- - t) 3 (t_+ - t)(1 - t), whose last three factors fall, r is least left of the middle of its roots. So
// f >= 1/2 (a - (t_- - 1)/2)^2 + gamma/2 s^2 there.
//
// A root is taken as found where the last step is small, of the root or of b, and of the interval on which
// f'' keeps its size.
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

// Setting out and most steps are in float, whatever the data's type: what they miss, the last step, in
// float64, makes up for, or says that it cannot.
struct TanhTrials {
  double sign;
  TanhCurve<double> curve;
  TanhCurve<float> rough;
  float t_b, square_sech_b, t_minus, u_minus;
  float bent;  // 0 where f is known to be convex from b on

  TORCHBCD_HOST_DEVICE explicit TanhTrials(const ProxProblem& p) {
    const float given_a = static_cast<float>(p.a);
    const auto at_b = TanhCurve<float>::point(static_cast<float>(p.b));
    sign = at_b.t > given_a ? -1 : 1;
    curve = {sign * p.a, sign * p.b, p.gamma};
    rough = {static_cast<float>(curve.a), static_cast<float>(curve.b), static_cast<float>(p.gamma)};
    t_b = static_cast<float>(sign) * at_b.t;
    square_sech_b = at_b.square_sech;
    t_minus = (rough.a - std::sqrt(rough.a * rough.a + 3)) * (1.0f / 3);
    u_minus = artanh(t_minus);
    const float before_minus = t_b >= t_minus ? 0.0f : 1.0f;
    bent = rough.gamma >= 0.3334f + 0.7699f * std::fabs(rough.a) ? 0.0f : before_minus;
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE static C artanh(C t) {
    return C(0.5) * log_positive((1 + t) / (1 - t));
  }

  struct Polished {
    double u;
    double sure;             // 1 where u is a root at which f' rises
    double twice_objective;  // there, where it is sure
  };

  // A last step, of Halley's iteration: it leaves far less than its own length, which is small beside u, or
  // beside b where that is much larger.
  TORCHBCD_HOST_DEVICE Polished polished(double u) const {
    const auto at = curve.point(u);
    const auto f = curve.derivatives(u, at);
    const double step = HalleyStep<double>(f.first, f.second, f.third).length;
    const double next = u + step;
    const double gap = at.t - curve.a + at.square_sech * step;
    const double away = next - curve.b;
    const double size = std::fabs(next) + 0.01 * std::fabs(curve.b);
    return {next, found_by(step, size, f.second, f.third), gap * gap + curve.gamma * away * away};
  }

  // Close to the root beyond `from`, where tanh is t and its slope s: the minimiser of the problem with tanh
  // replaced by its tangent there. Far right tanh bends, but is 1 - 2 x with the slope 4 x, x = e^-2u: the
  // root is then that of 8 x^2 + 4 (a - 1) x = gamma (u - b), with u - b as the tangent has it.
  TORCHBCD_HOST_DEVICE float guess(float from, float t, float s) const {
    const float a = rough.a, b = rough.b, gamma = rough.gamma;
    const float tangent = from + (s * (a - t) - gamma * (from - b)) / (s * s + gamma);
    const float pull = gamma * (tangent - b);
    const float over = a - 1;
    const float root = std::sqrt(over * over + 2 * pull);
    const float x = over > 0 ? pull / (2 * (over + root)) : 0.25f * (root - over);
    return x < 0.2f ? -0.5f * log_positive(x > 1e-30f ? x : 1e-30f) : tangent;
  }

  template <int steps>
  TORCHBCD_HOST_DEVICE Trial first() const {
    const float a = rough.a, b = rough.b, gamma = rough.gamma;
    const float slope_minus = 1 - t_minus * t_minus;
    const float at_minus = (t_minus - a) * slope_minus + gamma * (u_minus - b);
    const float falling = at_minus > 0 ? bent : 0.0f;
    const float from = bent > 0 ? u_minus : b;
    // f' >= gamma (u - b) - (a - t_b) max tanh' from b on
    const float bound = b + (a - t_b) * (b >= 0 ? square_sech_b : 1.0f) / gamma;
    const float high = falling > 0 ? u_minus : bound;
    const float low = falling > 0 ? b : from;
    const float guessed = guess(from, bent > 0 ? t_minus : t_b, bent > 0 ? slope_minus : square_sech_b);
    const float below = guessed < high ? guessed : high;
    const float inside = below > low ? below : low;

    RightRoot<float> search = {{falling > 0 ? u_minus : inside, low, high}, falling, 0.0f};
    TORCHBCD_UNROLL
    for (int k = 0; k < steps; ++k) {
      search = search.step(rough);
    }
    const Polished found = polished(search.at.u);
    // A left one may exist where f'' > 0 at b, unless that leaves it no room, or f is lower at the right one.
    const float slope_b = rough.slope({t_b, square_sech_b});
    const float falls = (a - t_b) * square_sech_b;
    const float apart = a - 0.5f * (t_minus - 1);
    const float excess = static_cast<float>(found.twice_objective) - apart * apart * 0.99999f;
    const float above = excess * (slope_b * slope_b) < gamma * falls * falls * 0.99999f ? 0.0f : 1.0f;
    const float possible = found.sure > 0 ? above * bent : bent;
    const float room = falls >= (u_minus - b) * slope_b ? 0.0f : possible;
    const float rising = slope_b > 0 ? room : 0.0f;
    const double when_found = rising > 0 ? kOneOfTwo : kSettled;
    const double other = rising > 0 ? kOtherUnknown : kUnsettled;
    const double when_lost = falling > 0 ? other : kUnsettled;
    const double when_missing = rising > 0 ? kOtherMissing : kUnsettled;
    const double verdict = found.sure > 0 ? when_found : when_lost;
    return {sign * found.u, search.missing > 0 ? when_missing : verdict};
  }

  template <int steps>
  TORCHBCD_HOST_DEVICE Trial second(const Trial& right) const {
    const float a = rough.a, b = rough.b, gamma = rough.gamma;
    const double known = right.verdict == kOneOfTwo ? 1.0 : 0.0;
    const double right_u = sign * right.u;
    const float limit = known > 0 ? static_cast<float>(right_u) : kFarRight;

    float u = b + (a - t_b) * square_sech_b / rough.slope({t_b, square_sech_b});
    float missing = 0;
    TORCHBCD_UNROLL
    for (int k = 0; k < steps; ++k) {
      const auto f = rough.derivatives(u);
      const float none = f.second > 0 ? 0.0f : 1.0f;
      const float past = u > limit ? 1.0f : 0.0f;
      missing = missing + none + past;
      const float next = u - f.first / f.second;
      u = missing > 0 ? b : next;
    }
    const Polished found = polished(u);
    const double present = missing > 0 ? 0.0 : 1.0;
    const double sure = found.sure * present;

    // What to be below: f at the right one, or what f exceeds there, or nothing. u_q from below by Newton's
    // iteration on r', which is negative and concave up to t_q.
    float t_q = -1;
    TORCHBCD_UNROLL
    for (int k = 0; k < 3; ++k) {
      t_q -= (2 * a + t_q * (-8 + t_q * (-6 * a + 12 * t_q))) / (-8 + t_q * (-12 * a + 36 * t_q));
    }
    const float away = artanh(t_q) - b;
    const float at_least = away > 0 ? away : 0;
    const float apart = a - t_minus;
    const float least = apart * apart + gamma * at_least * at_least;
    const double other = right.verdict == kOtherUnknown ? static_cast<double>(least) : kFarRight;
    const double bar = known > 0 ? curve.twice_objective(right_u) : other;
    const double lower = sure * (found.twice_objective <= bar ? 1.0 : 0.0);
    const double right_wins = known * (1 - lower) * (sure + (1 - present));  // no left one, or a higher one
    return {lower > 0 ? sign * found.u : right.u, lower + right_wins > 0 ? kSettled : kUnsettled};
  }

  // What neither settles, by twice as many steps: those with two roots that are nearly one, most of all.
  TORCHBCD_HOST_DEVICE Trial last() const {
    const Trial right = first<8>();
    const Trial left = second<8>(right);
    return right.verdict > kUnsettled ? left : right;
  }

 private:
  static constexpr float kFarRight = 1e30f;
};

}  // namespace torchbcd::functors
