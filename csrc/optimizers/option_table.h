// An option is a member of its optimizer's Options and a row of its table: name, range or choices, a line of
// help. The rows drive checks, the texts of errors, state_dict, set_option, TorchScript's dicts, Python's
// param groups and the options table of the docs.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/per_layer.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// Where an option's value is kept; PerLayer makes it an option of layers.
using OptionRef = std::variant<PerLayer<double>*, PerLayer<std::optional<double>>*, PerLayer<int64_t>*,
                               PerLayer<WeightRegularizer>*, double*, std::optional<double>*, int64_t*, bool*,
                               std::string*>;

/// What a number has to be, in words and as a test. "Not given" is always right where it can be said at all.
struct Range {
  const char* words;
  bool (*holds)(double);
};

namespace ranges {
extern const Range kAny, kPositive, kNonNegative, kAtLeastOne, kFraction, kUnit, kZeroToTwo, kTwoOrThree;
}  // namespace ranges

struct OptionRow {
  const char* name;
  OptionRef (*in)(void* options);
  Range range;
  const char* help;
  std::vector<std::string> choices = {};  // where it is a name
  bool at_start = false;   // only the constructor reads it, and makes other options of it: it is not kept
  bool of_scheme = false;  // it says what the state means: one with another is refused
  const char* or_else = nullptr;  // what a name may be beside the choices; the optimizer checks that

  bool of_layers(void* options) const;
  bool is_choice() const { return !choices.empty(); }
};

/// The row of Options::NAME, in a table beside a definition of `Options`.
#define TORCHBCD_OPTION(NAME, RANGE, HELP, ...) \
  {#NAME, [](void* o) -> OptionRef { return &static_cast<Options*>(o)->NAME(); }, RANGE, HELP, ##__VA_ARGS__}

/// Values of all options that are kept.
using OptionValues = std::vector<c10::IValue>;

/// An optimizer's Options by their rows.
class TORCHBCD_API OptionTable {
 public:
  /// `optimizer` is how errors call it; `defaults` an Options object as it is made.
  OptionTable(const char* optimizer, std::shared_ptr<void> defaults, std::vector<OptionRow> rows)
      : optimizer_(optimizer), defaults_(std::move(defaults)), rows_(std::move(rows)) {}

  const std::vector<OptionRow>& rows() const { return rows_; }
  /// The row of an option that is kept; ValueError, with the names of all, where there is none.
  const OptionRow& row(const std::string& name) const;
  /// The row of any option that a constructor takes.
  const OptionRow& start_row(const std::string& name) const;
  /// The names of the options that are kept: of those that are names themselves, or of the others.
  std::vector<std::string> names(bool choices) const;

  /// Gives every option of layers a value for each. Throws a ValueError where there are not as many.
  void spread(void* options, size_t depth) const;
  /// Throws a ValueError, with the option and its layer, unless every value is in its range.
  void check(void* options, size_t depth) const;

  /// The value of an option of somebody who has not set it.
  c10::IValue default_of(const OptionRow& row) const;
  /// Gives a saved option that is missing, being newer than the state, its default.
  void complete(c10::impl::GenericDict saved, const OptionRow& row) const;

  OptionValues values(void* options, size_t depth) const;
  void restore(void* options, size_t depth, const OptionValues& values) const;

 private:
  const char* optimizer_;
  std::shared_ptr<void> defaults_;
  std::vector<OptionRow> rows_;
};

/// An option, a layer's or the optimizer's, as Python has it: a number, None, a bool, or a name; a
/// regulariser is the list of its numbers (WeightRegularizer::numbers; four where it is one of entries), or
/// None; with a term of one's own, four and a capsule with it (proximal_value.h).
TORCHBCD_API c10::IValue get_option(void* options, const OptionRow& row, size_t layer);
/// The reverse. Throws a TypeError, with the option's name, where the value is of another kind. In place of a
/// capsule may be the name of the term that the layer has.
void set_option(void* options, const OptionRow& row, size_t layer, const c10::IValue& value);
/// One value for all layers, or a list with one for each; whether there are as many is for spread() to say.
TORCHBCD_API void set_option_of_all(void* options, const OptionRow& row, const c10::IValue& value);
/// "a number", "a whole number or None", ...: what set_option takes.
TORCHBCD_API std::string kind_of(void* options, const OptionRow& row);

/// The same as numbers alone, for TorchScript: one for each layer, those of a regulariser one after the
/// other, or a single one. NaN stands for None, 0 and 1 for a bool.
std::vector<double> option_numbers(void* options, const OptionRow& row, size_t depth);
void set_option_numbers(void* options, const OptionRow& row, size_t depth, c10::ArrayRef<double> numbers);

}  // namespace torchbcd
