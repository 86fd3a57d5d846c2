// A smooth function plus a regulariser of one's own, by accelerated proximal gradients.
//
// From a point Y a step goes to Z = prox(Y - grad f(Y) / L, 1 / L), with L a Lipschitz constant of f's
// gradient, so that from Y = X an exact prox never raises F = f + scale r (Beck and Teboulle, 2009). Z is
// kept only where F(Z) < F(X), which is measured. Where an extrapolated Y does not lead down, the next step
// starts from X itself; where that does not, X is as good as rounding, or the prox, can tell. So F falls with
// every point that is kept, whatever r and its prox are (Li and Lin, 2015, for r that is not convex).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "torchbcd/proximal_term.h"

namespace torchbcd {

/// f, in float64.
class SmoothPart {
 public:
  struct Point {
    at::Tensor x, gradient;
  };

  virtual ~SmoothPart() = default;
  /// A Lipschitz constant of the gradient.
  virtual double curvature() const = 0;
  virtual at::Tensor gradient(const at::Tensor& x) const = 0;
  /// The gradient where x is that far past `next`, coming from `last`.
  virtual at::Tensor gradient_beyond(const at::Tensor& x, const Point& /*next*/, const Point& /*last*/,
                                     double /*part*/) const {
    return gradient(x);
  }
  /// f(next) - f(last)
  virtual double rise(const Point& next, const Point& last) const = 0;
};

struct ProximalFound {
  at::Tensor x;             // an answer of the prox, to the bit, or the start, in its precision
  double at_start, at_end;  // r
};

/// From a start, until zero and an element of F's subdifferential are within `enough`
/// of each other, entry by entry; or for 500 steps. `where` begins errors: it throws as prox_of and value_of
/// do.
ProximalFound proximal_descent(const SmoothPart& f, const ProximalTerm& term, double scale,
                               const at::Tensor& start, double enough, const std::string& where);

}  // namespace torchbcd
