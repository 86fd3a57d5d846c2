// The prox of a smooth activation, or of one made of smooth pieces, by branch and bound: the global minimiser
// over u of h(u) = 1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2, for any sigma that states
//
//   branch(u, inside)  sigma(u), sigma'(u) and sigma''(u), in float64, as they are on the side of `inside`
//   next_break(u)      the least point beyond u at which one of the three stops being monotone, or jumps
//   steepest()         a bound of |sigma'|
//   jump()             where sigma itself jumps, if it does; with a break close by on either side
//   period()           where it has one: the length after which it repeats
//   lowest()           where it falls and then rises: the point between. On its left a value is attained
//                      farther from it than on its right, so that where b is on the right, no point on the
//                      left is as good as that on the right with its value
//
// Between two breaks the three lie, on any interval, between their values at its ends, which bounds h, h' and
// h'' there (Moore's interval arithmetic, exact for monotone functions). An interval is dropped where h is
// above the least value known, or h' has one sign, so that an end is best; where h'' > 0 its one minimiser is
// found by Newton's method; else it is cut in two. What is never dropped shrinks to the stationary points of
// h at which it is not strictly convex, of which problems in general position have none.
#pragma once

#include "functors/smooth_trials.h"
#include "functors/traits.h"

namespace torchbcd::functors {

// The least of `count` rising numbers beyond u.
TORCHBCD_HOST_DEVICE double first_beyond(double u, const double* at, int count) {
  for (int i = 0; i < count; ++i) {
    if (at[i] > u) {
      return at[i];
    }
  }
  return kInfinity;
}

template <typename Activation>
struct SmoothProx {
  static constexpr int kDeepest = 48;       // halvings of one interval
  static constexpr int kMost = 4096;        // cuts between two breaks, which only numbers that overflow reach
  static constexpr double kNarrow = 1e-13;  // an interval that counts as a point, beside its ends

  Activation activation;
  double a, b, gamma;

  struct Point {
    double u;
    Jet<double> sigma;
  };

  struct Range {
    double low, high;

    TORCHBCD_HOST_DEVICE static Range of(double x, double y) { return x < y ? Range{x, y} : Range{y, x}; }
    TORCHBCD_HOST_DEVICE Range times(const Range& other) const {
      const Range first = of(low * other.low, low * other.high);
      const Range last = of(high * other.low, high * other.high);
      return {std::fmin(first.low, last.low), std::fmax(first.high, last.high)};
    }
    TORCHBCD_HOST_DEVICE Range plus(double x, double y) const { return {low + x, high + y}; }
    TORCHBCD_HOST_DEVICE double least_magnitude() const { return low > 0 ? low : (high < 0 ? -high : 0.0); }
  };

  TORCHBCD_HOST_DEVICE Point point(double u, double inside) const {
    return {u, activation.branch(u, inside)};
  }

  // h' and h'' at a point of the piece that `inside` lies in.
  TORCHBCD_HOST_DEVICE ValueAndSlope derivatives(const Point& p) const {
    const double gap = p.sigma.value - a;
    return {gap * p.sigma.slope + gamma * (p.u - b),
            p.sigma.slope * p.sigma.slope + gap * p.sigma.second + gamma};
  }

  // Whether h is less at p than at q: half the difference as products of differences and sums, since squares
  // of large numbers that nearly agree would cancel.
  TORCHBCD_HOST_DEVICE bool better(const Point& p, const Point& q) const {
    return (p.sigma.value - q.sigma.value) * ((p.sigma.value - a) + (q.sigma.value - a)) +
               gamma * (p.u - q.u) * ((p.u - b) + (q.u - b)) <
           0;
  }

  // Between the ends; in equal ratios where these are of different sizes.
  TORCHBCD_HOST_DEVICE static double middle(double low, double high) {
    if (low >= 0 && high > 8 * low && high > 16) {
      return std::sqrt(std::fmax(low, 1.0) * high);
    }
    if (high <= 0 && low < 8 * high && low < -16) {
      return -std::sqrt(std::fmin(high, -1.0) * low);
    }
    return low + 0.5 * (high - low);
  }

  // The minimiser between two points with h'' > 0 between them: Newton's steps where they stay inside the
  // bracket and shrink fast enough, else its middle. The last one, whose error is about the square of it, is
  // not looked at again: what sigma is there follows from its derivatives.
  TORCHBCD_HOST_DEVICE_CALL Point convex(const Point& left, const Point& right, double inside) const {
    constexpr int kSteps = 200;
    constexpr double kLastStep = 1e-8;
    const double at_left = derivatives(left).value;
    const double at_right = derivatives(right).value;
    if (!(at_left < 0)) {
      return left;
    }
    if (!(at_right > 0)) {
      return right;
    }
    double low = left.u;
    double high = right.u;
    double last_step = high - low;
    double u = low + last_step * (at_left / (at_left - at_right));
    Point at = left;
    for (int k = 0; k < kSteps; ++k) {
      at = point(u, inside);
      const ValueAndSlope first = derivatives(at);
      (first.value < 0 ? low : high) = u;
      double step = -first.value / first.slope;
      const double size = std::fabs(u);
      if (std::fabs(step) <= std::fmax(kLastStep * std::fmin(size, 1.0), 1e-15 * size)) {
        const Jet<double>& s = at.sigma;
        return {u + step,
                {s.value + step * (s.slope + 0.5 * step * s.second), s.slope + step * s.second, s.second}};
      }
      // Written so that a NaN fails the test.
      if (!(u + step > low && u + step < high && 2 * std::fabs(step) < last_step)) {
        step = middle(low, high) - u;
        if (!(u + step > low && u + step < high)) {
          return at;
        }
      }
      last_step = std::fabs(step);
      u += step;
    }
    return at;
  }

  // The best of `best` and the points of an interval without a break inside.
  TORCHBCD_HOST_DEVICE_CALL Point search(Point left, const Point& end, Point best) const {
    const double inside = left.u + 0.5 * (end.u - left.u);
    Point right[kDeepest];
    int count = 0;
    right[count++] = end;
    for (int step = 0; count > 0; ++step) {
      const Point& next = right[count - 1];
      const double width = next.u - left.u;
      const Range gap = Range::of(left.sigma.value, next.sigma.value).plus(-a, -a);
      const Range slope = Range::of(left.sigma.slope, next.sigma.slope);
      const double least_gap = gap.least_magnitude();
      const double least_way = Range{left.u - b, next.u - b}.least_magnitude();
      const double best_gap = best.sigma.value - a;
      const double best_way = best.u - b;
      bool done = least_gap * least_gap + gamma * least_way * least_way >=
                  best_gap * best_gap + gamma * best_way * best_way;
      if (!done) {
        const Range bend = gap.times(Range::of(left.sigma.second, next.sigma.second));
        const double least_slope = slope.least_magnitude();
        const double most_slope = std::fmax(std::fabs(slope.low), std::fabs(slope.high));
        const Range second = bend.plus(least_slope * least_slope + gamma, most_slope * most_slope + gamma);
        const Range first = gap.times(slope).plus(gamma * (left.u - b), gamma * (next.u - b));
        const double at_left = derivatives(left).value;
        const double at_right = derivatives(next).value;
        const double low = std::fmax(std::fmax(first.low, at_left + width * std::fmin(second.low, 0.0)),
                                     at_right - width * std::fmax(second.high, 0.0));
        const double high = std::fmin(std::fmin(first.high, at_left + width * std::fmax(second.high, 0.0)),
                                      at_right - width * std::fmin(second.low, 0.0));
        Point found = left;
        if (low >= 0) {
          done = true;
        } else if (high <= 0) {
          found = next;
          done = true;
        } else if (second.low > 0) {
          found = convex(left, next, inside);
          done = true;
        }
        if (better(found, best)) {
          best = found;
        }
      }
      if (!done && count < kDeepest && step < kMost &&
          width > kNarrow * std::fmax(std::fabs(left.u), std::fabs(next.u)) + 1e-300) {
        right[count] = point(middle(left.u, next.u), inside);
        ++count;
        continue;
      }
      left = next;
      --count;
    }
    return better(left, best) ? left : best;
  }

  TORCHBCD_HOST_DEVICE_CALL double solve() const {
    const Point at_b = point(b, b);
    const double gap = a - at_b.sigma.value;
    if (gap == 0) {
      return b;
    }
    // h(u) <= h(b) holds |sigma(u) - a| to that at b. There h' = 0, or u is a break, from which sigma would
    // not fall faster than the quadratic does: gamma |u - b| <= |sigma(u) - a| steepest.
    double reach = std::fabs(gap) / std::sqrt(gamma);
    reach = std::fmin(reach, activation.steepest() * std::fabs(gap) / gamma);
    if constexpr (requires { activation.period(); }) {
      reach = std::fmin(reach, 0.5 * activation.period());  // the nearest of the points of one value
    }
    double low = b - reach;
    double high = b + reach;
    const double lowest = lowest_of(activation);
    if (b >= lowest) {  // away from a nothing is gained
      low = gap > 0 ? b : std::fmax(low, lowest);
      high = gap > 0 ? high : b;
    } else if (gap <= 0 && lowest < kInfinity) {  // lowest is nearer to b than what is beyond, and not worse
      low = b;
      high = std::fmin(high, lowest);
    }
    Point best = at_b;
    while (low < high) {
      const double end = std::fmin(activation.next_break(low), high);
      const double inside = low + 0.5 * (end - low);
      best = search(point(low, inside), point(end, inside), best);
      low = end;
    }
    if constexpr (requires { activation.jump(); }) {  // which makes sigma(u) nearer to a on either side of it
      const double aside = kAside * std::fabs(activation.jump());
      for (const double u : {activation.jump() - aside, activation.jump(), activation.jump() + aside}) {
        const Point beside = point(u, u);
        best = better(beside, best) ? beside : best;
      }
    }
    return best.u;
  }
};

// What activations that are solved so have in common.
template <typename Self>
struct SmoothActivation : ActivationTraits {
  template <typename T>
  TORCHBCD_HOST_DEVICE T prox(T a, T b, T gamma) const {
    const ProxProblem problem = {a, b, gamma};
    if constexpr (requires(const Self& f) { f.bends(); }) {
      return static_cast<T>(solve_by_trials<T>(self(), problem));
    } else {
      return static_cast<T>(solve(problem));
    }
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Trial first_trial(const ProxProblem& p) const
    requires requires(const Self& f) { f.bends(); }
  {
    return SmoothTrial<Self>{self()}.template first<T>(p);
  }

  TORCHBCD_HOST_DEVICE_CALL double solve(const ProxProblem& p) const {
    if (!(std::isfinite(p.a) && std::isfinite(p.b))) {
      return (p.a - p.a) + (p.b - p.b);  // NaN
    }
    return SmoothProx<Self>{self(), p.a, p.b, p.gamma}.solve();
  }

 private:
  TORCHBCD_HOST_DEVICE const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace torchbcd::functors
