// Reading and writing of SavedState, with the checks that a state from outside needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "linalg/affine_map.h"
#include "optimizers/dicts.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// Copies of weights and biases, as lists `weight` + suffix and `bias` + suffix.
void save_maps(SavedState& state, const std::vector<AffineMap>& maps, const std::string& suffix = "");

/// Copies of bound data. The weights of rows' losses are left out where all weigh one.
void save_data(SavedState& state, const at::Tensor& x, const at::Tensor& y,
               const at::Tensor& row_weight = {});

/// A state as Python and pickles have it: {"tensors": {name: [...]}, "numbers": {name: [...]}}.
c10::impl::GenericDict to_dict(const SavedState& state);
/// The reverse, moved to a device where one is given: what was saved on a GPU goes on on the CPU, and the
/// other way round. Throws a ValueError where it is something else.
SavedState from_dict(const c10::impl::GenericDict& dict, std::optional<at::Device> device = std::nullopt);

/// What a state holds, by its keys. Every method throws a ValueError, in the optimizer's name, where an entry
/// is missing or does not fit.
class StateReader {
 public:
  StateReader(const char* name, const SavedState& state) : name_(name), state_(state) {}

  bool has(const std::string& key) const { return state_.tensors.count(key) != 0; }
  at::Tensor tensor(const std::string& key) const;
  /// (n,), or undefined where all rows weigh one.
  at::Tensor sample_weight() const;
  /// Copies a list into `targets`, which have its shapes.
  void copy(const std::string& key, const std::vector<at::Tensor>& targets) const;
  std::vector<AffineMap> maps(const std::vector<AffineMap>& like, const std::string& suffix = "") const;
  std::vector<double> numbers(const std::string& key, size_t count) const;
  double number(const std::string& key) const { return numbers(key, 1)[0]; }
  /// A number >= 0 of a counter.
  int64_t count(const std::string& key) const;

 private:
  const std::vector<at::Tensor>& list(const std::string& key, size_t count) const;

  const char* name_;
  const SavedState& state_;
};

}  // namespace torchbcd
