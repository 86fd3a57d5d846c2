#include "optimizers/saved_state.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace torchbcd {

void save_maps(SavedState& state, const std::vector<AffineMap>& maps, const std::string& suffix) {
  const std::vector<AffineMap> copies = clone_maps(maps);
  for (const MapPart& part : kMapParts) {
    std::vector<at::Tensor> list;
    for (const AffineMap& map : copies) {
      list.push_back(map.*part.tensor);
    }
    const bool any = std::any_of(list.begin(), list.end(), [](const at::Tensor& t) { return t.defined(); });
    if (any || (part.of_affine && !list.empty())) {  // what no layer has is no list
      state.tensors[part.key + suffix] = list;
    }
  }
}

void save_data(SavedState& state, const at::Tensor& x, const at::Tensor& y, const at::Tensor& row_weight) {
  state.tensors["x"] = {x.clone()};
  state.tensors["y"] = {y.clone()};
  if (row_weight.defined()) {
    const bool uniform = row_weight.size(0) != x.size(0);
    state.tensors["row_weight"] = {uniform ? at::Tensor() : row_weight.clone()};
  }
}

c10::impl::GenericDict to_dict(const SavedState& state) {
  c10::impl::GenericDict tensors = python_dict();
  for (const auto& [name, list] : state.tensors) {
    c10::impl::GenericList values = python_list();
    for (const at::Tensor& t : list) {
      values.push_back(t.defined() ? c10::IValue(t) : c10::IValue());
    }
    tensors.insert(name, values);
  }
  c10::impl::GenericDict numbers = python_dict();
  for (const auto& [name, list] : state.numbers) {
    numbers.insert(name, python_list(list));
  }
  c10::impl::GenericDict dict = python_dict();
  dict.insert("tensors", tensors);
  dict.insert("numbers", numbers);
  return dict;
}

SavedState from_dict(const c10::impl::GenericDict& dict, std::optional<at::Device> device) {
  SavedState state;
  for (const auto& item : as_dict("tensors", entry(dict, "tensors"))) {
    std::vector<at::Tensor>& list = state.tensors[item.key().toStringRef()];
    for (const c10::IValue& t : as_list("an entry of tensors", item.value())) {
      TORCH_CHECK_VALUE(t.isNone() || t.isTensor(), "torchbcd: tensors must hold tensors (got ", t.tagKind(),
                        ")");
      list.push_back(t.isNone() ? at::Tensor() : device ? t.toTensor().to(*device) : t.toTensor());
    }
  }
  for (const auto& item : as_dict("numbers", entry(dict, "numbers"))) {
    std::vector<double>& list = state.numbers[item.key().toStringRef()];
    for (const c10::IValue& x : as_list("an entry of numbers", item.value())) {
      TORCH_CHECK_VALUE(x.isDouble() || x.isInt(), "torchbcd: numbers must hold numbers (got ", x.tagKind(),
                        ")");
      list.push_back(x.toScalar().toDouble());
    }
  }
  return state;
}

const std::vector<at::Tensor>& StateReader::list(const std::string& key, size_t count) const {
  const auto found = state_.tensors.find(key);
  const size_t size = found == state_.tensors.end() ? 0 : found->second.size();
  TORCH_CHECK_VALUE(found != state_.tensors.end() && size == count, name_, ": the state must hold ", count,
                    " tensors named '", key, "' (got ", size, ")");
  return found->second;
}

at::Tensor StateReader::tensor(const std::string& key) const {
  const at::Tensor& t = list(key, 1)[0];
  TORCH_CHECK_VALUE(t.defined(), name_, ": the state must hold a tensor named '", key, "' (got none)");
  return t;
}

at::Tensor StateReader::sample_weight() const {
  const at::Tensor& t = list("row_weight", 1)[0];
  return t.defined() && t.dim() == 2 ? t.squeeze(1) : t;
}

void StateReader::copy(const std::string& key, const std::vector<at::Tensor>& targets) const {
  const std::vector<at::Tensor>& sources = list(key, targets.size());
  for (size_t l = 0; l < targets.size(); ++l) {
    const at::Tensor& source = sources[l];
    at::Tensor target = targets[l];
    TORCH_CHECK_VALUE(
        source.defined() == target.defined() && (!target.defined() || source.sizes() == target.sizes()),
        name_, ": state['", key, "'] of layer ", l + 1, " does not fit this model and its data");
    if (target.defined()) {
      target.copy_(source);
    }
  }
}

std::vector<AffineMap> StateReader::maps(const std::vector<AffineMap>& like,
                                         const std::string& suffix) const {
  std::vector<AffineMap> maps = allocate_like(like);
  for (const MapPart& part : kMapParts) {
    std::vector<at::Tensor> parts;
    bool needed = part.of_affine;
    for (const AffineMap& map : maps) {
      parts.push_back(map.*part.tensor);
      needed = needed || parts.back().defined();
    }
    if (needed) {
      copy(part.key + suffix, parts);
    }
  }
  return maps;
}

std::vector<double> StateReader::numbers(const std::string& key, size_t count) const {
  const auto found = state_.numbers.find(key);
  const size_t size = found == state_.numbers.end() ? 0 : found->second.size();
  TORCH_CHECK_VALUE(found != state_.numbers.end() && size == count, name_, ": the state must hold ", count,
                    " numbers named '", key, "' (got ", size, ")");
  return found->second;
}

int64_t StateReader::count(const std::string& key) const {
  const double value = number(key);
  TORCH_CHECK_VALUE(value >= 0 && std::nearbyint(value) == value, name_, ": state['", key,
                    "'] must be a whole number >= 0 (got ", value, ")");
  return static_cast<int64_t>(value);
}

}  // namespace torchbcd
