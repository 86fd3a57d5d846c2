// A regulariser of weights that is one's own: a function known by its prox.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

namespace torchbcd {

/// r(W) as its author writes it. Steps call both functions, on the thread that steps, without gradients, on
/// copies; what they throw ends the step, which then has changed nothing.
struct ProximalTerm {
  /// What errors and saved states call it.
  std::string name;
  /// argmin over Z of r(Z) + |Z - W|^2 / (2 step), any of them, for step > 0. W has the layer's shape, dtype
  /// and device, which the answer has to have, too.
  std::function<at::Tensor(const at::Tensor& weight, double step)> prox;
  /// r(W), infinite where W must not be; never so at what `prox` returns. W is in float64, whatever its layer
  /// is.
  std::function<double(const at::Tensor& weight)> value;
  /// What Python's door has made it of; a C++ program leaves it empty.
  std::shared_ptr<void> origin = {};
};

}  // namespace torchbcd
