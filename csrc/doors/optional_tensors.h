// Lists of tensors as Python and TorchScript have them, where None stands for an undefined one.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

namespace torchbcd {

using OptionalTensors = std::vector<std::optional<at::Tensor>>;

inline OptionalTensors to_optional(const std::vector<at::Tensor>& tensors) {
  OptionalTensors optionals;
  for (const at::Tensor& t : tensors) {
    optionals.push_back(t.defined() ? std::optional<at::Tensor>(t) : std::nullopt);
  }
  return optionals;
}

inline std::vector<at::Tensor> from_optional(const OptionalTensors& optionals) {
  std::vector<at::Tensor> tensors;
  for (const std::optional<at::Tensor>& t : optionals) {
    tensors.push_back(t.value_or(at::Tensor()));
  }
  return tensors;
}

}  // namespace torchbcd
