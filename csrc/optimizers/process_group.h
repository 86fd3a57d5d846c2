// Collective operations over a process group of torch.distributed, by its name.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "linalg/reductions.h"

namespace torchbcd {

/// Sets every rank's tensors to those of rank 0.
void broadcast_from_first_rank(const std::vector<at::Tensor>& tensors, const std::string& group);

SumOverRanks sum_over_process_group(const std::string& group);

/// A number that equal things share, and others next to never (FNV-1a).
class Fingerprint {
 public:
  void add(const std::string& text) { add(text.data(), text.size()); }
  void add(const std::vector<double>& numbers) { add(numbers.data(), numbers.size() * sizeof(double)); }
  void add(const at::Tensor& t);
  uint64_t value() const { return value_; }

 private:
  void add(const void* data, size_t bytes);

  uint64_t value_ = 14695981039346656037U;
};

/// What the ranks have told each other; every rank gets the same answer.
struct Agreement {
  bool same = true;      // whether all have the same fingerprint
  int64_t failures = 0;  // ranks that have failed
};

/// By one collective, which sums some numbers more, in place.
Agreement agree(const SumOverRanks& sum, const at::Device& device, const Fingerprint& fingerprint,
                bool failed, const std::vector<double*>& sums = {});

/// What the one rank that has failed says; empty where there are several.
std::string what_failed(const SumOverRanks& sum, const at::Device& device, const Agreement& agreement,
                        const std::string& said);

}  // namespace torchbcd
