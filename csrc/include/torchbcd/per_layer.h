// What an option for all layers, or for each, is kept in.
#pragma once

#include <c10/util/Exception.h>

#include <concepts>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace torchbcd {

/// One value for all layers, or one for each: 0.5, or {0.5, 1.0, 2.0}. In an optimizer's options it holds one
/// for each.
template <typename T>
class PerLayer {
 public:
  template <std::convertible_to<T> V>
  PerLayer(V&& value) : values_{static_cast<T>(std::forward<V>(value))}, uniform_(true) {}
  PerLayer(std::initializer_list<T> values) : values_(values), uniform_(false) {}
  PerLayer(std::vector<T> values) : values_(std::move(values)), uniform_(false) {}

  /// Whether one value stands for all layers.
  bool uniform() const { return uniform_; }
  const std::vector<T>& values() const { return values_; }

  /// The value of a layer, from 0.
  const T& operator[](size_t layer) const { return values_[uniform_ ? 0 : layer]; }
  T& operator[](size_t layer) { return values_[uniform_ ? 0 : layer]; }

  /// A value for each of `depth` layers, from one for all of them. Throws a ValueError, with the option's
  /// name, where there are not as many.
  void spread(size_t depth, const char* name) {
    constexpr bool number = std::is_arithmetic_v<T> || std::is_same_v<T, std::optional<double>>;
    TORCH_CHECK_VALUE(uniform_ || values_.size() == depth, name, " must hold one ",
                      number ? "number" : "entry", " for each of the ", depth,
                      " layers, or be one for all (got ", values_.size(), ")");
    if (uniform_) {
      values_.assign(depth, T(values_.front()));
      uniform_ = false;
    }
  }

 private:
  std::vector<T> values_;
  bool uniform_;
};

}  // namespace torchbcd
