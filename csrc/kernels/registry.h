// From the names that Python, TorchScript and C++ programs use to the functors behind them.
#pragma once

#include <c10/util/ArrayRef.h>

#include <string_view>

#include "functors/activations.h"
#include "functors/losses.h"
#include "torchbcd/export.h"

namespace torchbcd {

/// The activation called `name` with the parameters that its functor takes, or its defaults; ValueError, with
/// the list of names, where there is none.
TORCHBCD_API functors::AnyActivation activation_from(std::string_view name, c10::ArrayRef<double> parameters);

/// Throws a ValueError, in the name of `op`, unless the activation is monotone and continuous, as DLAM's
/// blocks need it (quasilinear: Wang et al., Assumption 1).
void check_monotone(const char* op, const functors::AnyActivation& activation);

/// Throws a ValueError, in the name of `op`, where the activation jumps.
void check_continuous(const char* op, const functors::AnyActivation& activation);

/// The loss called `name`; ValueError, with the list of names, where there is none.
TORCHBCD_API functors::AnyLoss loss_from(std::string_view name);

}  // namespace torchbcd
