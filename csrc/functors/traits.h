// What activations and losses state of themselves: each names what of this does not hold for it.
#pragma once

#include <array>

#include "functors/scalar.h"

namespace torchbcd::functors {

// The numbers that users give a functor by position. Its `set` takes them over; it returns what must hold
// where it does not.
struct ParameterCount {
  int fewest = 0;  // where any are given
  int most = 0;
  bool optional = true;        // whether none may be given: the defaults hold
  const char* must = nullptr;  // how errors put it; none for a functor without parameters

  constexpr bool allows(int count) const {
    return (count >= fewest && count <= most) || (optional && count == 0);
  }
};

struct ActivationTraits {
  static constexpr ParameterCount parameters = {};
  static constexpr bool identity = false;   // whether sigma(u) = u
  static constexpr bool continuous = true;  // whether it has no jump
  static constexpr bool discrete = false;   // whether its values are a few numbers: it has no slope to follow
  // Whether its graph is made of lines, which piece(u), or derivative(u) where it has no piece, tells apart.
  static constexpr bool piecewise_linear = false;
  // Where the lines of a continuous one meet, from the left to the right.
  std::array<double, 0> kinks() const { return {}; }
  // Whether it knows, where it is monotone and continuous, the ends of the intervals {u : sigma(u) >= t}, by
  // preimage_low, and {u : sigma(u) <= t}, by preimage_high: +inf and -inf where an interval is empty, -inf
  // and +inf where it is the whole line.
  static constexpr bool has_preimages = false;
  static constexpr bool bounded_slope = true;  // whether |sigma'| is

  // Whether it never falls, which its parameters may decide.
  TORCHBCD_HOST_DEVICE bool monotone() const { return true; }
};

// What a loss does with class indices.
enum class TargetEncoding {
  kOneHot,        // the row of the identity matrix
  kPlusMinusOne,  // one class against the rest: +1 at the class, -1 elsewhere; with one output, two classes
  kZeroOne,       // one class against the rest: 1 and 0; with one output, two classes
};

// What targets that are numbers may be, and how errors put it.
struct TargetRange {
  double least = -kInfinity, greatest = kInfinity;
  const char* must = nullptr;
};

struct LossTraits {
  static constexpr ParameterCount parameters = {};
  static constexpr TargetEncoding encoding = TargetEncoding::kOneHot;
  static constexpr TargetRange targets = {};
  static constexpr bool softmax = false;  // whether outputs are compared with each other
  // Whether an output is to be its target, as numbers of one scale, where targets are not classes.
  static constexpr bool outputs_are_targets = true;
  static constexpr bool differentiable = true;      // a gradient(v, y) rather than a subdifferential
  static constexpr bool lipschitz_gradient = true;  // whether gradient_lipschitz(y) bounds its slope
  // Whether a row's entries depend on each other: it then has, instead of these functions of an entry, a
  // Row<T> with solve(), value() and, as far as the two traits before say so, gradient() and
  // gradient_lipschitz(); or else subgradient(end, unit), whose values for end = 0 and 1 are the ends of the
  // segment that the subdifferential of a row is.
  static constexpr bool couples_row = false;
};

}  // namespace torchbcd::functors
