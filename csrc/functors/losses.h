// Losses l(v; y), one struct each, in functors/losses/: a name that users call it by and, entry by entry, its
// value(v, y), convex in v, gradient(v, y) or the ends of its subdifferential(v, y), and its prox,
//
//     prox(y, b, gamma) = argmin over v of  l(v; y) + gamma/2 (v - b)^2,    gamma > 0.
//
// What else one states is in functors/traits.h. One with parameters has them as members and a set(values,
// count), as an activation has.
#pragma once

#include <variant>

#include "functors/losses/binary_cross_entropy.h"
#include "functors/losses/cross_entropy.h"
#include "functors/losses/exponential.h"
#include "functors/losses/hinge.h"
#include "functors/losses/huber.h"
#include "functors/losses/logistic.h"
#include "functors/losses/poisson.h"
#include "functors/losses/quantile.h"
#include "functors/losses/row_hinge.h"
#include "functors/losses/squared.h"

namespace torchbcd::functors {

// All there are: a new one is a header like these and a name here.
using AnyLoss = std::variant<SquaredLoss, HingeLoss, RowHingeLoss, LogisticLoss, ExponentialLoss, HuberLoss,
                             QuantileLoss, PoissonLoss, BinaryCrossEntropyLoss, CrossEntropyLoss>;

inline bool couples_row(const AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.couples_row; }, loss);
}

}  // namespace torchbcd::functors
