// Dicts and lists as Python and pickles have them.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>

#include <string>
#include <vector>

namespace torchbcd {

inline c10::impl::GenericDict python_dict() {
  return c10::impl::GenericDict(c10::StringType::get(), c10::AnyType::get());
}
inline c10::impl::GenericList python_list() { return c10::impl::GenericList(c10::AnyType::get()); }
/// Of numbers; a typed list would be pickled by a name that torch.load refuses.
inline c10::impl::GenericList python_list(const std::vector<double>& numbers) {
  c10::impl::GenericList list = python_list();
  for (const double x : numbers) {
    list.push_back(x);
  }
  return list;
}

inline c10::IValue entry(const c10::impl::GenericDict& dict, const std::string& key) {
  TORCH_CHECK_VALUE(dict.contains(key), "torchbcd: the state must have an entry '", key, "'");
  return dict.at(key);
}

inline c10::impl::GenericDict as_dict(const char* what, const c10::IValue& value) {
  TORCH_CHECK_VALUE(value.isGenericDict(), "torchbcd: ", what, " must be a dict (got ", value.tagKind(), ")");
  return value.toGenericDict();
}

/// A list of Python's may have become a list of tensors, or of numbers, on the way.
inline std::vector<c10::IValue> as_list(const char* what, const c10::IValue& value) {
  TORCH_CHECK_VALUE(value.isList(), "torchbcd: ", what, " must be a list (got ", value.tagKind(), ")");
  return value.toListRef().vec();
}

}  // namespace torchbcd
