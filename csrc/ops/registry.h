// From the names that Python, TorchScript and C++ programs use to the functors behind them.
#pragma once

#include <c10/util/ArrayRef.h>

#include <string_view>

#include "functors/activations.h"
#include "functors/losses.h"

namespace torchbcd {

/// The activation called `name`; ValueError, with the list of names, where there is none.
functors::Activation activation_from(std::string_view name, c10::ArrayRef<double> parameters);

/// The loss called `name`; ValueError, with the list of names, where there is none.
functors::Loss loss_from(std::string_view name);

}  // namespace torchbcd
