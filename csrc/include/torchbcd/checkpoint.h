// Checkpoints that C++ and Python programs exchange: files of torch.save.
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <string>

#include "torchbcd/export.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Writes what torchbcd.save_checkpoint(path, model, optimizer) writes in Python: a file that torch.load
/// reads, with the two state_dicts, which the model and an optimizer of the same kind take there.
TORCHBCD_API void save_checkpoint(const std::string& path, const torch::nn::Sequential& model,
                                  SplitOptimizer& optimizer);

/// Reads such a file, written here or in Python, into a model and its optimizer. Other entries are ignored.
/// Throws a ValueError, changing nothing, where it does not fit.
TORCHBCD_API void load_checkpoint(const std::string& path, torch::nn::Sequential& model,
                                  SplitOptimizer& optimizer);

}  // namespace torchbcd
