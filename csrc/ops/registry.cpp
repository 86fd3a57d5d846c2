#include "ops/registry.h"

#include <c10/util/Exception.h>

#include <optional>
#include <string>
#include <utility>

namespace torchbcd {
namespace {

template <typename Variant, std::size_t... I>
Variant by_name(const char* kind, std::string_view name, std::index_sequence<I...>) {
  std::optional<Variant> found;
  std::string known;
  const auto consider = [&](auto functor) {
    using Functor = decltype(functor);
    known.append(known.empty() ? "'" : ", '").append(Functor::name).append("'");
    if (name == Functor::name) {
      found = functor;
    }
  };
  (consider(std::variant_alternative_t<I, Variant>{}), ...);
  TORCH_CHECK_VALUE(found.has_value(), "torchbcd: ", kind, " must be one of ", known, " (got '", name, "')");
  return *found;
}

template <typename Variant>
Variant by_name(const char* kind, std::string_view name) {
  return by_name<Variant>(kind, name, std::make_index_sequence<std::variant_size_v<Variant>>{});
}

}  // namespace

functors::Activation activation_from(std::string_view name, c10::ArrayRef<double> parameters) {
  const auto activation = by_name<functors::Activation>("activation", name);
  TORCH_CHECK_VALUE(parameters.empty(), "torchbcd: activation '", name, "' takes no parameters (got ",
                    parameters.size(), ")");
  return activation;
}

functors::Loss loss_from(std::string_view name) { return by_name<functors::Loss>("loss", name); }

}  // namespace torchbcd
