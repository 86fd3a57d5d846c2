// What a reader of models, Python's or LibTorch's, has found, and the one judge of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/mlp.h"

namespace torchbcd {

struct FoundModule {
  enum class Kind { kFlatten, kPartialFlatten, kLinear, kActivation, kLayerNorm, kDropout, kUnknown };

  Kind kind = Kind::kUnknown;
  std::string position;     // in the model: "2", or "1.0" within a nested Sequential
  std::string text;         // how errors call it
  at::Tensor weight, bias;  // of a Linear or a LayerNorm; the slope of a PReLU that is trained
  Activation activation;    // of a Dropout, its probability alone
  bool trainable = false;   // whether a parameter of it requires gradients
  int begins = 0;           // how many Residuals begin with it
  int ends = 0;             // and how many end
  double eps = 0;           // of a LayerNorm, and what it normalises over
  std::vector<int64_t> shape = {};
};

/// How many modules come before the layers: whatever runs as it is, since it is no layer, and what stands
/// before it. 0 for a plain MLP, and where there is no Linear behind the last of them.
TORCHBCD_API size_t modules_before_layers(const std::vector<FoundModule>& modules);

/// The layers of [frozen modules,] [Flatten,] Linear, activation, ..., Linear[, activation]. Throws a
/// ValueError that names a module which is not supported, or not at its place, and its position; the layers
/// begin behind `begin` modules, and `supported` lists what the reader knows. `frozen_first` is the reader's
/// to fill.
TORCHBCD_API Mlp mlp_of(const std::vector<FoundModule>& modules, size_t begin, const std::string& supported);

/// A function that reads the model again, whose parameters may be others by then. It throws a ValueError,
/// with the position, where a module is another one, or has been changed, appended or removed.
std::function<Mlp()> reader_of(const torch::nn::Sequential& model);

}  // namespace torchbcd
