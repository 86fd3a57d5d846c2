#include "api/named_option.h"

#include <c10/util/Exception.h>

#include <cmath>
#include <limits>
#include <string>

namespace torchbcd::detail {
namespace {

constexpr double kNotGiven = std::numeric_limits<double>::quiet_NaN();

int64_t whole(const char* name, double number) {
  TORCH_CHECK_VALUE(std::nearbyint(number) == number, "torchbcd: ", name, " must be a whole number (got ",
                    number, ")");
  return static_cast<int64_t>(number);
}

// The Python class of a regulariser, with its arguments.
c10::IValue named_regularizer(const Regularizer& r) {
  const bool bounded = std::isfinite(r.low) || std::isfinite(r.high);
  if (!bounded && r.l1 == 0 && r.l2 == 0) {
    return {};
  }
  TORCH_CHECK_VALUE(!bounded || (r.l1 == 0 && r.l2 == 0),
                    "torchbcd: a regulariser with both norms and bounds has no name to be saved by");
  c10::impl::GenericDict dict = python_dict();
  if (r.low == 0 && !std::isfinite(r.high)) {
    dict.insert("name", "Nonnegative");
  } else if (bounded) {
    dict.insert("name", "Box");
    dict.insert("low", r.low);
    dict.insert("high", r.high);
  } else if (r.l1 == 0 || r.l2 == 0) {
    dict.insert("name", r.l1 == 0 ? "L2" : "L1");
    dict.insert("weight", r.l1 + r.l2);
  } else {
    dict.insert("name", "ElasticNet");
    dict.insert("l1", r.l1);
    dict.insert("l2", r.l2);
  }
  return dict;
}

double number(const char* name, const c10::IValue& value) {
  TORCH_CHECK_VALUE(value.isDouble() || value.isInt() || value.isBool(), "torchbcd: ", name,
                    " must be a number (got ", value.tagKind(), ")");
  return value.isBool() ? static_cast<double>(value.toBool()) : value.toScalar().toDouble();
}

Regularizer regularizer_named(const char* option, const c10::IValue& value) {
  if (value.isNone()) {
    return {};
  }
  TORCH_CHECK_VALUE(value.isGenericDict(), "torchbcd: ", option, " must be None or a dict (got ",
                    value.tagKind(), ")");
  const c10::impl::GenericDict dict = value.toGenericDict();
  const auto entry = [&](const char* key) {
    TORCH_CHECK_VALUE(dict.contains(key), "torchbcd: ", option, " must have an entry '", key, "'");
    return dict.at(key);
  };
  const std::string name = entry("name").toStringRef();
  const auto argument = [&](const char* key) { return number(option, entry(key)); };
  if (name == "L1") {
    return regularizers::L1(argument("weight"));
  }
  if (name == "L2") {
    return regularizers::L2(argument("weight"));
  }
  if (name == "ElasticNet") {
    return regularizers::ElasticNet(argument("l1"), argument("l2"));
  }
  if (name == "Nonnegative") {
    return regularizers::Nonnegative();
  }
  TORCH_CHECK_VALUE(name == "Box", "torchbcd: ", option,
                    " must be one of L1, L2, ElasticNet, Nonnegative, Box (got ", name, ")");
  return regularizers::Box(argument("low"), argument("high"));
}

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

void NamedOption::append_to(std::vector<double>& numbers) const {
  std::visit(
      Overloaded{
          [&](const std::optional<double>* v) { numbers.push_back(v->value_or(kNotGiven)); },
          [&](const Regularizer* v) { numbers.insert(numbers.end(), {v->l1, v->l2, v->low, v->high}); },
          [&](const auto* v) { numbers.push_back(static_cast<double>(*v)); },
      },
      value);
}

void NamedOption::set(c10::ArrayRef<double> numbers) const {
  const double first = numbers[0];
  std::visit(Overloaded{
                 [&](double* v) { *v = first; },
                 [&](std::optional<double>* v) {
                   *v = std::isnan(first) ? std::nullopt : std::optional<double>(first);
                 },
                 [&](int64_t* v) { *v = whole(name, first); },
                 [&](bool* v) {
                   TORCH_CHECK_VALUE(first == 0 || first == 1, "torchbcd: ", name, " must be 0 or 1 (got ",
                                     first, ")");
                   *v = first == 1;
                 },
                 [&](Regularizer* v) { *v = {numbers[0], numbers[1], numbers[2], numbers[3]}; },
             },
             value);
}

c10::IValue NamedOption::to_python() const {
  return std::visit(
      Overloaded{
          [](const std::optional<double>* v) { return v->has_value() ? c10::IValue(**v) : c10::IValue(); },
          [](const Regularizer* v) { return named_regularizer(*v); },
          [](const auto* v) { return c10::IValue(*v); },
      },
      value);
}

void NamedOption::from_python(const c10::IValue& from) const {
  if (auto* const* regularizer = std::get_if<Regularizer*>(&value)) {
    **regularizer = regularizer_named(name, from);
  } else if (from.isNone()) {
    TORCH_CHECK_VALUE(std::holds_alternative<std::optional<double>*>(value), "torchbcd: ", name,
                      " must be a number (got None)");
    set({kNotGiven});
  } else {
    set({number(name, from)});
  }
}

}  // namespace torchbcd::detail
