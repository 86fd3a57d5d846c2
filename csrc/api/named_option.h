// An option by its name and where its value is kept: what lets state_dict(), set_option() and TorchScript
// treat the options of every optimizer alike.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "functors/regularizers.h"
#include "torchbcd/options.h"

namespace torchbcd::detail {

struct NamedOption {
  const char* name;
  std::variant<double*, std::optional<double>*, int64_t*, bool*, Regularizer*> value;

  /// How many numbers it is: one, or the four of a regulariser.
  size_t size() const { return std::holds_alternative<Regularizer*>(value) ? 4 : 1; }
  void append_to(std::vector<double>& numbers) const;
  /// Takes size() numbers; NaN leaves an optional one empty. Throws where one is not whole and has to be.
  void set(c10::ArrayRef<double> numbers) const;

  /// As Python's param groups have it: a number, None, or a dict that names a regulariser.
  c10::IValue to_python() const;
  void from_python(const c10::IValue& from) const;
};

/// A dict and a list as Python has them, of anything.
inline c10::impl::GenericDict python_dict() {
  return c10::impl::GenericDict(c10::StringType::get(), c10::AnyType::get());
}
inline c10::impl::GenericList python_list() { return c10::impl::GenericList(c10::AnyType::get()); }

/// The engine's form of a regulariser.
inline functors::Regularizer to_functor(const Regularizer& r) { return {r.l1, r.l2, r.low, r.high}; }

/// The layers' values of an option, from one for all of them or one for each.
template <typename Layer, typename Value, typename T>
void spread(std::vector<Layer>& layers, Value Layer::* member, const PerLayer<T>& values, const char* name) {
  for (size_t l = 0; l < layers.size(); ++l) {
    layers[l].*member = values.of(l, layers.size(), name);
  }
}

}  // namespace torchbcd::detail
