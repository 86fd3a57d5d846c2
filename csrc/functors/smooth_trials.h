// The trial (functors/trial.h) of the activations of functors/smooth_prox.h, for those that also state
//
//   jet(u)                     sigma(u), sigma'(u) and sigma''(u), in arithmetic of float or double
//   bends()                    bounds of sigma'', -sigma'' and |sigma'''|
//   smooth_between(low, high)  where sigma or sigma' jumps somewhere: whether not there
//
// It finds a stationary point u of h between b and where sigma is a. No better point has |sigma - a| or
// sqrt(gamma) |. - b| above G = sqrt(2 h(u)). Where sigma rises, the points that have neither are an
// interval, and u is its least if h is convex there: h'' = sigma'^2 + (sigma - a) sigma'' + gamma, and
// sigma'' is adverse where it has the sign of a - sigma. There |(sigma - a) sigma''| <= G bends(), and if it
// is so at b, then sigma' is at least as large as at b until it is so no longer, for good: true of each sigma
// there is here. Where it is not known that sigma rises, h has to be convex as far as G allows, with |sigma -
// a| growing by steepest().
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

struct Bends {
  double up, down, third;
};

// Where sigma begins to rise for good; b beyond it has its minimiser there.
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
    const double lowest = lowest_of(activation);
    const double rises = b >= lowest ? 1.0 : 0.0;
    const double far = size / std::sqrt(gamma);
    const double near = steep * size / gamma;
    const double reach = far < near ? far : near;
    const double floor = rises > 0 ? lowest : -kInfinity;
    const double left = b - reach > floor ? b - reach : floor;
    const double low = rises * gap > 0 ? b : left;
    const double high = rises > 0 ? (gap > 0 ? b + reach : b) : b + reach;

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
    const double rising = gamma + adverse >= most * (gap > 0 ? bends.up : bends.down) ? 1.0 : 0.0;
    const double moves = steep * longest;
    const double upper = (gap + moves > 0 ? gap + moves : 0.0) * bends.up;
    const double lower = (moves - gap > 0 ? moves - gap : 0.0) * bends.down;
    const double any = (gamma >= upper ? 1.0 : 0.0) * (gamma >= lower ? 1.0 : 0.0);
    double known = rises > 0 ? rising : any;
    if constexpr (requires { activation.smooth_between(low, high); }) {
      known *= activation.smooth_between(low > b - longest ? low : b - longest,
                                         high < b + longest ? high : b + longest);
    }
    const double bend =
        3 * steep * (bends.up > bends.down ? bends.up : bends.down) + (size + moves) * bends.third;
    return {next, known * found_by(step, next, h.second, bend) > 0 ? kSettled : kUnsettled};
  }
};

}  // namespace torchbcd::functors
