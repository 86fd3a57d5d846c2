#include "ops/registry.h"

#include <c10/util/Exception.h>

#include <cmath>
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
  functors::Activation activation = by_name<functors::Activation>("activation", name);
  if (auto* leaky = std::get_if<functors::LeakyReLU>(&activation)) {
    TORCH_CHECK_VALUE(parameters.size() <= 1, "torchbcd: activation 'leaky_relu' takes one parameter, its ",
                      "negative slope (got ", parameters.size(), ")");
    if (!parameters.empty()) {
      TORCH_CHECK_VALUE(std::isfinite(parameters[0]), "torchbcd: negative_slope must be finite (got ",
                        parameters[0], ")");
      leaky->slope = parameters[0];
    }
  } else if (auto* hard = std::get_if<functors::HardTanh>(&activation)) {
    TORCH_CHECK_VALUE(parameters.empty() || parameters.size() == 2,
                      "torchbcd: activation 'hardtanh' takes two parameters, its bounds (got ",
                      parameters.size(), ")");
    if (!parameters.empty()) {
      TORCH_CHECK_VALUE(
          std::isfinite(parameters[0]) && std::isfinite(parameters[1]) && parameters[0] < parameters[1],
          "torchbcd: min_val must be below max_val, and both finite (got ", parameters[0], " and ",
          parameters[1], ")");
      hard->low = parameters[0];
      hard->high = parameters[1];
    }
  } else if (auto* polynomial = std::get_if<functors::Polynomial>(&activation)) {
    constexpr size_t most = functors::Polynomial::kMaxDegree + 1;
    TORCH_CHECK_VALUE(!parameters.empty() && parameters.size() <= most,
                      "torchbcd: a polynomial must have 1 to ", most, " coefficients (got ",
                      parameters.size(), ")");
    for (size_t k = 0; k < parameters.size(); ++k) {
      TORCH_CHECK_VALUE(std::isfinite(parameters[k]), "torchbcd: coefficients must be finite (got ",
                        parameters[k], ")");
      polynomial->coefficients[k] = parameters[k];
      if (parameters[k] != 0) {
        polynomial->degree = static_cast<int>(k);
      }
    }
  } else {
    TORCH_CHECK_VALUE(parameters.empty(), "torchbcd: activation '", name, "' takes no parameters (got ",
                      parameters.size(), ")");
  }
  return activation;
}

void check_monotone(const char* op, const functors::Activation& activation) {
  const auto* leaky = std::get_if<functors::LeakyReLU>(&activation);
  TORCH_CHECK_VALUE(
      std::visit([](auto f) { return functors::has_preimages<decltype(f)>; }, activation) &&
          (leaky == nullptr || leaky->slope > 0),
      op,
      ": the activation must be monotone and continuous, which a polynomial, a sign and a leaky "
      "ReLU of slope <= 0 are not");
}

functors::Loss loss_from(std::string_view name) { return by_name<functors::Loss>("loss", name); }

}  // namespace torchbcd
