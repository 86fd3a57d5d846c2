// What a reader of models, Python's or LibTorch's, has found, and the one judge of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/mlp.h"

namespace torchbcd {

struct FoundModule {
  enum class Kind { kFlatten, kPartialFlatten, kLinear, kActivation, kUnknown };

  Kind kind = Kind::kUnknown;
  std::string position;     // in the model: "2", or "1.0" within a nested Sequential
  std::string text;         // how errors call it
  at::Tensor weight, bias;  // of a Linear
  Activation activation;
};

/// The layers of [Flatten,] Linear, activation, ..., Linear[, activation]. Throws a ValueError that names a
/// module which is not supported, or not at its place, and its position; `supported` lists what the reader
/// knows.
TORCHBCD_API Mlp mlp_of(const std::vector<FoundModule>& modules, const std::string& supported);

}  // namespace torchbcd
