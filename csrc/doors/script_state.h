// States as TorchScript holds them.
#pragma once

#include <ATen/core/Dict.h>

#include <string>
#include <tuple>
#include <vector>

#include "doors/optional_tensors.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

using ScriptTensors = c10::Dict<std::string, OptionalTensors>;
using ScriptNumbers = c10::Dict<std::string, std::vector<double>>;
using ScriptState = std::tuple<ScriptTensors, ScriptNumbers>;

inline ScriptTensors to_script(const Tensors& tensors) {
  ScriptTensors script;
  for (const auto& [name, list] : tensors) {
    script.insert(name, to_optional(list));
  }
  return script;
}

inline ScriptState to_script(const SavedState& state) {
  ScriptNumbers numbers;
  for (const auto& [name, list] : state.numbers) {
    numbers.insert(name, list);
  }
  return {to_script(state.tensors), numbers};
}

inline SavedState from_script(const ScriptTensors& tensors, const ScriptNumbers& numbers) {
  SavedState state;
  for (const auto& item : tensors) {
    state.tensors[item.key()] = from_optional(item.value());
  }
  for (const auto& item : numbers) {
    state.numbers[item.key()] = item.value();
  }
  return state;
}

}  // namespace torchbcd
