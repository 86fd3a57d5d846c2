// A model of Python's: its modules as Python has found them, and its parameters.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "doors/optional_tensors.h"
#include "optimizers/found_modules.h"

namespace torchbcd::python {

// A parameter of the model's by another handle: torch.utils.swap_tensors refuses those that anyone holds.
inline at::Tensor handle(const std::optional<at::Tensor>& parameter) {
  if (!parameter) {
    return {};
  }
  const c10::InferenceMode as_it_is(parameter->is_inference());
  return parameter->detach().set_requires_grad(parameter->requires_grad());
}

inline std::vector<at::Tensor> handles(const OptionalTensors& parameters) {
  std::vector<at::Tensor> result;
  std::transform(parameters.begin(), parameters.end(), std::back_inserter(result), handle);
  return result;
}

// (kind, position, text, weight, bias, activation, its parameters) of each module.
using PythonModule = std::tuple<std::string, std::string, std::string, std::optional<at::Tensor>,
                                std::optional<at::Tensor>, std::string, std::vector<double>>;

inline Mlp read_modules(const std::vector<PythonModule>& modules, const std::string& supported) {
  using Kind = FoundModule::Kind;
  const std::map<std::string, Kind> kinds = {{"linear", Kind::kLinear},
                                             {"activation", Kind::kActivation},
                                             {"flatten", Kind::kFlatten},
                                             {"partial_flatten", Kind::kPartialFlatten},
                                             {"unknown", Kind::kUnknown}};
  std::vector<FoundModule> found;
  for (const auto& [kind, position, text, weight, bias, activation, parameters] : modules) {
    found.push_back({kinds.at(kind), position, text, handle(weight), handle(bias), {activation, parameters}});
  }
  return mlp_of(found, supported);
}

}  // namespace torchbcd::python
