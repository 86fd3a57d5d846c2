#include "kernels/registry.h"

#include <c10/util/Exception.h>

#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

namespace torchbcd {
namespace {

template <typename Variant>
Variant by_name(const char* kind, std::string_view name) {
  std::optional<Variant> found;
  std::string known;
  const auto consider = [&](auto functor) {
    using Functor = decltype(functor);
    known.append(known.empty() ? "'" : ", '").append(Functor::name).append("'");
    if (name == Functor::name) {
      found = functor;
    }
  };
  [&]<size_t... I>(std::index_sequence<I...>) {
    (consider(std::variant_alternative_t<I, Variant>{}), ...);
  }(std::make_index_sequence<std::variant_size_v<Variant>>{});
  TORCH_CHECK_VALUE(found.has_value(), "torchbcd: ", kind, " must be one of ", known, " (got '", name, "')");
  return *found;
}

// "1 and 2"
std::string listed(c10::ArrayRef<double> values) {
  std::ostringstream text;
  for (size_t k = 0; k < values.size(); ++k) {
    text << (k == 0 ? "" : " and ") << values[k];
  }
  return text.str();
}

template <typename Activation>
void set_parameters(Activation& activation, c10::ArrayRef<double> values) {
  constexpr functors::ParameterCount takes = Activation::parameters;
  const int count = static_cast<int>(values.size());
  if constexpr (takes.must == nullptr) {
    TORCH_CHECK_VALUE(count == 0, "torchbcd: activation '", Activation::name, "' takes no parameters (got ",
                      count, ")");
  } else {
    TORCH_CHECK_VALUE(takes.allows(count), "torchbcd: ", takes.must, " (got ", count, ")");
    if (count > 0) {
      const char* must = activation.set(values.data(), count);
      TORCH_CHECK_VALUE(must == nullptr, "torchbcd: ", must, " (got ", listed(values), ")");
    }
  }
}

}  // namespace

functors::AnyActivation activation_from(std::string_view name, c10::ArrayRef<double> parameters) {
  functors::AnyActivation activation = by_name<functors::AnyActivation>("activation", name);
  std::visit([&](auto& f) { set_parameters(f, parameters); }, activation);
  return activation;
}

void check_monotone(const char* op, const functors::AnyActivation& activation) {
  std::visit(
      [&](const auto& f) {
        TORCH_CHECK_VALUE(f.has_preimages && f.continuous && f.monotone(), op,
                          ": the activation must be monotone and continuous (got '", f.name,
                          "', which with these parameters is not)");
      },
      activation);
}

void check_continuous(const char* op, const functors::AnyActivation& activation) {
  std::visit(
      [&](const auto& f) {
        TORCH_CHECK_VALUE(f.continuous, op, ": the activation must be continuous (got '", f.name,
                          "', which jumps)");
      },
      activation);
}

functors::AnyLoss loss_from(std::string_view name) { return by_name<functors::AnyLoss>("loss", name); }

}  // namespace torchbcd
