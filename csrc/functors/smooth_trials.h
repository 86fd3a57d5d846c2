// The trial (functors/trial.h) of the activations of functors/smooth_prox.h, for those that also state
//
//   jet(u)                     sigma(u), sigma'(u) and sigma''(u), in arithmetic of float or double
//   bends()                    bounds of sigma'', -sigma'' and |sigma'''|
//   dip(G)                     where it knows it: a bound of G |sigma''| - sigma'^2 where sigma is adverse
//   smooth_between(low, high)  where sigma' jumps somewhere: whether not there
//   jump()                     where sigma itself jumps
//
// It moves from b towards where sigma is a, to a stationary point u of h. No better point has |sigma - a| or
// sqrt(gamma) |. - b| above G = sqrt(2 h(u)). On an interval that holds the minimiser and on which sigma is
// monotone, the points that have neither are an interval too, and u is the best of them if h'' = sigma'^2 +
// (sigma - a) sigma'' + gamma > 0 there. sigma'' is adverse where it has the sign of a - sigma. There
// |(sigma - a) sigma''| <= G bends(), and |sigma'| is at least as large as at b if sigma'' is adverse at b,
// which it then is until it is so no longer, for good: true of each sigma there is here. With u_m = lowest(),
// the interval is
//
// 1. b >= u_m: to the right where sigma(b) <= a, to the left down to u_m otherwise (functors/smooth_prox.h).
// 2. b < u_m, sigma(b) >= a: to the right up to u_m. Any point beyond is farther from b, and as far from a at
//    least as u_m or, if sigma is a before that, where it is.
// 3. b < u_m, sigma(b) < a: to the left. Any point right of u_m is at a distance of u_m - b or more, and any
//    between loses to b. There h' has one sign change: r = h'' - gamma > 0 up to where sigma'' = 0, beyond
//    which r falls, since sigma', sigma - a < 0 and sigma'', sigma''' > 0; and h'(b) > 0. Or else h is convex
//    as far as G allows, with |sigma - a| growing by steepest().
#pragma once

#include "functors/elementary.h"
#include "functors/scalar.h"
#include "functors/trial.h"

namespace torchbcd::functors {

// sigma and its derivatives at a point.
template <typename C>
struct Jet {
  C value, slope, second;
};

// Beside a jump by this, relative to where it is, a point is clear of it.
inline constexpr double kAside = 4.5e-16;

struct Bends {
  double up, down, third;
};

// Where sigma begins to rise for good; infinity where it is not known.
template <typename Activation>
TORCHBCD_HOST_DEVICE double lowest_of(const Activation& activation) {
  if constexpr (requires { activation.lowest(); }) {
    return activation.lowest();
  } else {
    return activation.monotone() ? -kInfinity : kInfinity;
  }
}

template <typename Activation>
struct SmoothTrial {
  static constexpr int kSteps = 4;

  Activation activation;

  template <typename C>
  struct Derivatives {
    C first, second;
  };

  template <typename C>
  TORCHBCD_HOST_DEVICE static Derivatives<C> derivatives(const Jet<C>& at, C a, C b, C gamma, C u) {
    const C gap = at.value - a;
    return {gap * at.slope + gamma * (u - b), at.slope * at.slope + gap * at.second + gamma};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first(const ProxProblem& p) const {
    const double a = p.a, b = p.b, gamma = p.gamma;
    const Jet<double> at_b = activation.jet(b);
    const Bends bends = activation.bends();
    const double gap = a - at_b.value;
    const double size = std::fabs(gap);
    const double steep = activation.steepest();
    // As SmoothProx::solve() has it.
    const double far = size / std::sqrt(gamma);
    const double near = steep * size / gamma;
    const double reach = far < near ? far : near;
    const double lowest = lowest_of(activation);
    const double rises = b >= lowest ? 1.0 : 0.0;
    const double rightwards = gap > 0 ? rises : 1 - rises;
    const double left = b - reach;
    const double right = b + reach;
    const double left_floor = rises > 0 ? lowest : left;
    const double right_floor = rises > 0 ? right : lowest;
    const double left_end = left > left_floor ? left : left_floor;
    const double right_end = right < right_floor ? right : right_floor;
    const double low = rightwards > 0 ? b : left_end;
    const double high = rightwards > 0 ? right_end : b;

    const double tangent = b + at_b.slope * gap / (at_b.slope * at_b.slope + gamma);
    const double below = tangent < high ? tangent : high;
    Bracketed<T> search = {static_cast<T>(below > low ? below : low), static_cast<T>(low),
                           static_cast<T>(high)};
    const T a_t = static_cast<T>(a), b_t = static_cast<T>(b), gamma_t = static_cast<T>(gamma);
    TORCHBCD_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const Derivatives<T> h = derivatives(activation.jet(search.u), a_t, b_t, gamma_t, search.u);
      search = search.moved(h.first, -h.first / h.second, h.second);
    }
    const double last = search.u;
    const Jet<double> at = activation.jet(last);
    const Derivatives<double> h = derivatives(at, a, b, gamma, last);
    const double step = -h.first / h.second;
    const double next = last + step;

    const double way = last - b;
    const double square = (at.value - a) * (at.value - a) + gamma * way * way;
    const double most = std::sqrt(square);             // G
    const double longest = std::sqrt(square / gamma);  // of the ways to better points
    const double adverse = gap * at_b.second > 0 ? at_b.slope * at_b.slope : 0.0;
    const double bound = most * (gap > 0 ? bends.up : bends.down);
    double convex = gamma + adverse >= bound ? 1.0 : 0.0;
    if constexpr (requires { activation.dip(most); }) {
      convex = gamma >= activation.dip(most) ? 1.0 : convex;
    }
    const double alone = longest <= lowest - b ? 1.0 : 0.0;
    const double anywhere = gamma >= (size + steep * longest) * (bends.up + bends.down) ? 1.0 : alone;
    const double falling = gap > 0 ? anywhere : convex;
    double known = rises > 0 ? convex : falling;
    known = lowest < kInfinity ? known : 0.0;
    if constexpr (requires { activation.smooth_between(low, high); }) {
      known *= activation.smooth_between(low > b - longest ? low : b - longest,
                                         high < b + longest ? high : b + longest);
    }
    if constexpr (requires { activation.jump(); }) {
      known = std::fabs(activation.jump() - b) * (1 - kAside) > longest ? known : 0.0;
    }
    const double bend = 3 * steep * (bends.up > bends.down ? bends.up : bends.down) + size * bends.third;
    return {next, known * found_by(step, next, h.second, bend) > 0 ? kSettled : kUnsettled};
  }
};

}  // namespace torchbcd::functors
