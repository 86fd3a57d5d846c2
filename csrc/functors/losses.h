// Losses l(v; y), one struct each, in functors/losses/, entry by entry, and their prox,
//
//     prox(y, b, gamma) = argmin over v of  l(v; y) + gamma/2 (v - b)^2,    gamma > 0.
//
// Each also states
//
//     name                what users call it by
//     encoding            what class indices become
//     probabilities       whether its targets must be >= 0
//     convex              as the closed forms of the output block ask for
//     differentiable      whether it has a gradient(v, y); otherwise it gives subdifferential(v, y)
//     lipschitz_gradient  whether gradient_lipschitz(y) bounds the gradient's slope
//     couples_row         whether a row's entries depend on each other: it then has, instead of these
//     functions of
//                         an entry, a Row<T> with solve(), value(), gradient() and gradient_lipschitz().
#pragma once

#include <type_traits>
#include <variant>

#include "functors/host_device.h"
#include "functors/losses/cross_entropy.h"
#include "functors/losses/exponential.h"
#include "functors/losses/hinge.h"
#include "functors/losses/huber.h"
#include "functors/losses/logistic.h"
#include "functors/losses/squared.h"
#include "functors/pair.h"

namespace torchbcd::functors {

// All there are: a new one is a header like these and a name here.
using AnyLoss =
    std::variant<SquaredLoss, HingeLoss, LogisticLoss, ExponentialLoss, HuberLoss, CrossEntropyLoss>;

inline bool couples_row(const AnyLoss& loss) {
  return std::visit([](const auto& l) { return std::decay_t<decltype(l)>::couples_row; }, loss);
}

// The ends of the subdifferential in v of a loss with a value an entry.
template <typename T, typename Loss>
TORCHBCD_HOST_DEVICE Pair<T> loss_subdifferential(const Loss& loss, T v, T y) {
  if constexpr (Loss::differentiable) {
    const T gradient = loss.gradient(v, y);
    return {gradient, gradient};
  } else {
    return loss.subdifferential(v, y);
  }
}

}  // namespace torchbcd::functors
