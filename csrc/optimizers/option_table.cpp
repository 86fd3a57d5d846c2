#include "optimizers/option_table.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <type_traits>

#include "optimizers/dicts.h"
#include "optimizers/proximal_value.h"
#include "optimizers/weight_constraints.h"

namespace torchbcd {

namespace ranges {

constexpr auto positive = [](double x) { return std::isfinite(x) && x > 0; };
const Range kAny = {"a number", [](double) { return true; }};
const Range kPositive = {"a finite positive number", positive};
const Range kNonNegative = {"a finite number >= 0", [](double x) { return std::isfinite(x) && x >= 0; }};
const Range kAtLeastOne = {"at least 1", [](double x) { return std::isfinite(x) && x >= 1; }};
const Range kFraction = {"in [0, 1)", [](double x) { return x >= 0 && x < 1; }};
const Range kUnit = {"in (0, 1]", [](double x) { return x > 0 && x <= 1; }};
const Range kZeroToTwo = {"in (0, 2)", [](double x) { return x > 0 && x < 2; }};
const Range kTwoOrThree = {"2 or 3", [](double x) { return x == 2 || x == 3; }};

}  // namespace ranges

namespace {

constexpr double kNotGiven = std::numeric_limits<double>::quiet_NaN();

template <typename T>
constexpr bool is_per_layer = false;
template <typename T>
constexpr bool is_per_layer<PerLayer<T>> = true;

// f(value), for the value that an option has in a layer.
template <typename F>
decltype(auto) visit_value(const OptionRow& row, void* options, size_t layer, const F& f) {
  return std::visit(
      [&](auto* kept) -> decltype(auto) {
        if constexpr (is_per_layer<std::remove_pointer_t<decltype(kept)>>) {
          return f((*kept)[layer]);
        } else {
          return f(*kept);
        }
      },
      row.in(options));
}

// What an option's value is for Python, what it takes, and what it is in numbers, by its type.
c10::IValue to_ivalue(double x) { return x; }
c10::IValue to_ivalue(const std::optional<double>& x) { return x ? c10::IValue(*x) : c10::IValue(); }
c10::IValue to_ivalue(int64_t x) { return x; }
c10::IValue to_ivalue(bool x) { return x; }
c10::IValue to_ivalue(const std::string& x) { return x; }
c10::IValue to_ivalue(const WeightRegularizer& r) {
  if (r.none()) {
    return {};
  }
  c10::impl::GenericList list = python_list(r.numbers());
  if (r.proximal) {
    list = python_list({r.entries.l1, r.entries.l2, r.entries.low, r.entries.high});
    list.push_back(capsule_of(r.proximal));
  }
  return list;
}

const char* kind(const double&) { return "a number"; }
const char* kind(const std::optional<double>&) { return "a number or None"; }
const char* kind(const int64_t&) { return "a whole number"; }
const char* kind(const bool&) { return "True or False"; }
const char* kind(const std::string&) { return "a name"; }
const char* kind(const WeightRegularizer&) { return "a torchbcd.regularizers object or None"; }

bool is_number(const c10::IValue& value) { return value.isDouble() || value.isInt(); }
double to_number(const c10::IValue& value) { return value.toScalar().toDouble(); }

bool read(const c10::IValue& value, double& x) {
  const bool right = is_number(value);
  x = right ? to_number(value) : x;
  return right;
}
bool read(const c10::IValue& value, std::optional<double>& x) {
  const bool right = value.isNone() || is_number(value);
  x = !right ? x : value.isNone() ? std::nullopt : std::optional<double>(to_number(value));
  return right;
}
bool read(const c10::IValue& value, int64_t& x) {
  const bool right = value.isInt();
  x = right ? value.toInt() : x;
  return right;
}
bool read(const c10::IValue& value, bool& x) {
  const bool right = value.isBool();
  x = right ? value.toBool() : x;
  return right;
}
bool read(const c10::IValue& value, std::string& x) {
  const bool right = value.isString();
  x = right ? value.toStringRef() : x;
  return right;
}
bool read(const c10::IValue& value, WeightRegularizer& r) {
  if (value.isNone()) {
    r = {};
    return true;
  }
  if (!value.isList() || value.toListRef().empty()) {
    return false;
  }
  std::vector<c10::IValue> list = value.toListRef().vec();
  std::shared_ptr<const ProximalTerm> term = term_in(list.back());
  if (list.back().isString()) {  // as states have it
    const std::string& name = list.back().toStringRef();
    TORCH_CHECK_VALUE(
        r.proximal && r.proximal->name == name,
        "torchbcd: a state has the name of a regulariser of one's own alone: make the optimizer with "
        "the one named '",
        name, "' in that layer (got ", r.proximal ? "'" + r.proximal->name + "'" : "none", ")");
    term = r.proximal;
  }
  list.resize(list.size() - (term ? 1 : 0));
  if (!std::all_of(list.begin(), list.end(), is_number)) {
    return false;
  }
  std::vector<double> numbers;
  std::transform(list.begin(), list.end(), std::back_inserter(numbers), to_number);
  const double* next = numbers.data();
  const double* const end = next + numbers.size();
  const std::optional<WeightRegularizer> found = WeightRegularizer::read(next, end);
  if (!found || next != end) {
    return false;
  }
  r = *found;
  r.proximal = term;
  return true;
}

void append(std::vector<double>& numbers, const WeightRegularizer& r) {
  TORCH_CHECK_VALUE(!r.proximal,
                    "torchbcd: TorchScript, and lists of numbers, cannot hold a regulariser of one's "
                    "own (got '",
                    r.proximal->name, "')");
  const std::vector<double> own = r.numbers();
  numbers.insert(numbers.end(), own.begin(), own.end());
}
void append(std::vector<double>& numbers, const std::optional<double>& x) {
  numbers.push_back(x.value_or(kNotGiven));
}
template <typename T>
void append(std::vector<double>& numbers, const T& x) {
  if constexpr (std::is_arithmetic_v<T>) {
    numbers.push_back(static_cast<double>(x));
  }
}

template <typename T>
void from_numbers(const char* name, const double* numbers, T& x) {
  if constexpr (std::is_same_v<T, WeightRegularizer>) {
    TORCH_INTERNAL_ASSERT(false, "regularisers have no fixed count of numbers");
  } else if constexpr (std::is_same_v<T, std::optional<double>>) {
    x = std::isnan(*numbers) ? std::nullopt : std::optional<double>(*numbers);
  } else if constexpr (std::is_same_v<T, bool>) {
    TORCH_CHECK_VALUE(*numbers == 0 || *numbers == 1, name, " must be 0 or 1 (got ", *numbers, ")");
    x = *numbers == 1;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    TORCH_CHECK_VALUE(std::nearbyint(*numbers) == *numbers, name, " must be a whole number (got ", *numbers,
                      ")");
    x = static_cast<int64_t>(*numbers);
  } else if constexpr (std::is_same_v<T, double>) {
    x = *numbers;
  }
}

std::string listed(const std::vector<std::string>& names, const char* quote) {
  std::string text;
  for (const std::string& name : names) {
    text.append(text.empty() ? "" : ", ").append(quote).append(name).append(quote);
  }
  return text;
}

bool holds(const OptionRow& row, double x) { return row.range.holds(x); }
bool holds(const OptionRow& row, const std::optional<double>& x) { return !x || row.range.holds(*x); }
bool holds(const OptionRow& row, const std::string& x) {
  return row.or_else != nullptr || std::find(row.choices.begin(), row.choices.end(), x) != row.choices.end();
}
bool holds(const Regularizer& r) {
  return std::isfinite(r.l1) && r.l1 >= 0 && std::isfinite(r.l2) && r.l2 >= 0 && r.low <= r.high;
}
bool holds(const OptionRow&, const WeightRegularizer& r) {
  return holds(r.entries) && complaint_of(r).empty();
}

// What a value that is out of range is told.
std::string complaint(const OptionRow& row, double x) {
  return c10::str("must be ", row.range.words, " (got ", x, ")");
}
std::string complaint(const OptionRow& row, const std::optional<double>& x) { return complaint(row, *x); }
std::string complaint(const OptionRow& row, const std::string& x) {
  return c10::str("must be one of ", listed(row.choices, "'"), " (got '", x, "')");
}
std::string complaint(const Regularizer& r) {
  return r.low <= r.high ? c10::str("must have finite weights >= 0 (got l1 = ", r.l1, ", l2 = ", r.l2, ")")
                         : c10::str("must have low <= high (got ", r.low, " and ", r.high, ")");
}
std::string complaint(const OptionRow&, const WeightRegularizer& r) {
  return holds(r.entries) ? complaint_of(r) : complaint(r.entries);
}

}  // namespace

bool OptionRow::of_layers(void* options) const {
  return std::visit([](auto* kept) { return is_per_layer<std::remove_pointer_t<decltype(kept)>>; },
                    in(options));
}

const OptionRow& OptionTable::row(const std::string& name) const {
  const auto found = std::find_if(rows_.begin(), rows_.end(),
                                  [&](const OptionRow& row) { return !row.at_start && row.name == name; });
  TORCH_CHECK_VALUE(found != rows_.end(), optimizer_, ": option must be one of ", listed(names(false), ""),
                    ", ", listed(names(true), ""), " (got '", name, "')");
  return *found;
}

const OptionRow& OptionTable::start_row(const std::string& name) const {
  const auto found =
      std::find_if(rows_.begin(), rows_.end(), [&](const OptionRow& row) { return row.name == name; });
  return found != rows_.end() ? *found : row(name);
}

std::vector<std::string> OptionTable::names(bool choices) const {
  std::vector<std::string> names;
  for (const OptionRow& row : rows_) {
    if (!row.at_start && row.is_choice() == choices) {
      names.emplace_back(row.name);
    }
  }
  return names;
}

void OptionTable::spread(void* options, size_t depth) const {
  for (const OptionRow& row : rows_) {
    std::visit(
        [&](auto* kept) {
          if constexpr (is_per_layer<std::remove_pointer_t<decltype(kept)>>) {
            kept->spread(depth, row.name);
          }
        },
        row.in(options));
  }
}

void OptionTable::check(void* options, size_t depth) const {
  for (const OptionRow& row : rows_) {
    const bool of_layers = row.of_layers(options);
    for (size_t l = 0; l < (of_layers ? depth : 1); ++l) {
      visit_value(row, options, l, [&](const auto& value) {
        TORCH_CHECK_VALUE(holds(row, value), optimizer_, ": ", row.name,
                          of_layers ? " of layer " + std::to_string(l + 1) : std::string(), " ",
                          complaint(row, value));
      });
    }
  }
}

c10::IValue OptionTable::default_of(const OptionRow& row) const {
  return get_option(defaults_.get(), row, 0);
}

void OptionTable::complete(c10::impl::GenericDict saved, const OptionRow& row) const {
  if (!saved.contains(row.name)) {
    saved.insert(row.name, default_of(row));
  }
}

OptionValues OptionTable::values(void* options, size_t depth) const {
  OptionValues values;
  for (const OptionRow& row : rows_) {
    for (size_t l = 0; !row.at_start && l < (row.of_layers(options) ? depth : 1); ++l) {
      values.push_back(get_option(options, row, l));
    }
  }
  return values;
}

void OptionTable::restore(void* options, size_t depth, const OptionValues& values) const {
  auto value = values.begin();
  for (const OptionRow& row : rows_) {
    for (size_t l = 0; !row.at_start && l < (row.of_layers(options) ? depth : 1); ++l) {
      set_option(options, row, l, *value++);
    }
  }
}

c10::IValue get_option(void* options, const OptionRow& row, size_t layer) {
  return visit_value(row, options, layer, [](const auto& value) { return to_ivalue(value); });
}

void set_option(void* options, const OptionRow& row, size_t layer, const c10::IValue& value) {
  visit_value(row, options, layer, [&](auto& kept) {
    TORCH_CHECK_TYPE(read(value, kept), row.name, " must be ", kind(kept), " (got ", value, ")");
  });
}

void set_option_of_all(void* options, const OptionRow& row, const c10::IValue& value) {
  std::visit(
      [&](auto* kept) {
        using Kept = std::remove_pointer_t<decltype(kept)>;
        if constexpr (is_per_layer<Kept>) {
          using Value = std::decay_t<decltype((*kept)[0])>;
          Value single = {};
          if (read(value, single)) {
            *kept = Kept(single);
            return;
          }
          TORCH_CHECK_TYPE(value.isList(), row.name, " must be ", kind(single),
                           ", or one for each layer (got ", value, ")");
          std::vector<Value> all;
          for (const c10::IValue& entry : value.toListRef()) {
            all.emplace_back();
            TORCH_CHECK_TYPE(read(entry, all.back()), row.name, " must be ", kind(single),
                             ", or one for each layer (got ", entry, ")");
          }
          *kept = Kept(std::move(all));
        } else {
          set_option(options, row, 0, value);
        }
      },
      row.in(options));
}

std::string kind_of(void* options, const OptionRow& row) {
  const std::string one =
      visit_value(row, options, 0, [](const auto& value) { return std::string(kind(value)); });
  return row.of_layers(options) ? one + ", or one for each layer" : one;
}

namespace {

// Regularisers one after the other: one for all layers, or one for each.
bool set_regularizers(PerLayer<WeightRegularizer>& kept, size_t layers, c10::ArrayRef<double> numbers) {
  std::vector<WeightRegularizer> all;
  for (const double* next = numbers.begin(); next != numbers.end();) {
    std::optional<WeightRegularizer> found = WeightRegularizer::read(next, numbers.end());
    if (!found) {
      return false;
    }
    all.push_back(std::move(*found));
  }
  if (all.size() != 1 && all.size() != layers) {
    return false;
  }
  for (size_t l = 0; l < layers; ++l) {
    kept[l] = all[all.size() == 1 ? 0 : l];
  }
  return true;
}

}  // namespace

std::vector<double> option_numbers(void* options, const OptionRow& row, size_t depth) {
  TORCH_CHECK_VALUE(!row.is_choice(), "torchbcd: ", row.name, " is a name, one of ", listed(row.choices, "'"),
                    ", not a number");
  std::vector<double> numbers;
  for (size_t l = 0; l < (row.of_layers(options) ? depth : 1); ++l) {
    visit_value(row, options, l, [&](const auto& value) { append(numbers, value); });
  }
  return numbers;
}

void set_option_numbers(void* options, const OptionRow& row, size_t depth, c10::ArrayRef<double> numbers) {
  const size_t layers = row.of_layers(options) ? depth : 1;
  const OptionRef kept_in = row.in(options);
  if (auto* const* regularizers = std::get_if<PerLayer<WeightRegularizer>*>(&kept_in)) {
    TORCH_CHECK_VALUE(set_regularizers(**regularizers, layers, numbers), "torchbcd: ", row.name,
                      " must be 4 or ", 4 * layers, " numbers, or more where they are not of entries (got ",
                      numbers.size(), ")");
    return;
  }
  const size_t all = option_numbers(options, row, depth).size();
  const size_t one = all / layers;
  TORCH_CHECK_VALUE(numbers.size() == one || numbers.size() == all, "torchbcd: ", row.name, " must be ", one,
                    " or ", all, " numbers (got ", numbers.size(), ")");
  for (size_t l = 0; l < layers; ++l) {
    const double* first = numbers.data() + (numbers.size() == one ? 0 : l * one);
    visit_value(row, options, l, [&](auto& kept) { from_numbers(row.name, first, kept); });
  }
}

}  // namespace torchbcd
