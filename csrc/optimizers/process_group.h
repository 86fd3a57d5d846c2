// Collective operations over a process group of torch.distributed, by its name.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "linalg/reductions.h"

namespace torchbcd {

/// Sets every rank's tensors to those of rank 0.
void broadcast_from_first_rank(const std::vector<at::Tensor>& tensors, const std::string& group);

SumOverRanks sum_over_process_group(const std::string& group);

}  // namespace torchbcd
