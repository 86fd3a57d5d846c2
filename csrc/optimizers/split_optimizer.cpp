#include "torchbcd/split_optimizer.h"

#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "kernels/registry.h"
#include "optimizers/dicts.h"
#include "optimizers/option_table.h"
#include "optimizers/proximal_value.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"
#include "optimizers/trained_mlp.h"
#include "optimizers/weight_constraints.h"

namespace torchbcd {
namespace {

// The form of state_dict(). It changes where a state can no longer be read as before.
constexpr int64_t kFormat = 1;

// "BCD" of "torchbcd.BCD".
std::string kind_of_optimizer(const TrainedMlp& mlp) { return std::string(mlp.name).substr(9); }

// Without Dropouts, which come and go with the model's mode.
c10::impl::GenericList texts_of(const std::vector<Activation>& activations) {
  c10::impl::GenericList texts = python_list();
  for (const Activation& activation : activations) {
    Activation without = activation;
    without.dropout = 0;
    texts.push_back(without.text());
  }
  return texts;
}

// "V of layer 1 to layer 3" for each skip.
c10::impl::GenericList texts_of(const std::vector<Skip>& skips) {
  c10::impl::GenericList texts = python_list();
  for (const Skip& skip : skips) {
    texts.push_back(
        c10::str(skip.activated ? "V" : "U", " of layer ", skip.from + 1, " to layer ", skip.to + 1));
  }
  return texts;
}

}  // namespace

SplitOptimizer::SplitOptimizer(const char* name, Mlp mlp, const std::string& loss)
    : mlp_(std::make_unique<TrainedMlp>(name, std::move(mlp), loss)) {}

SplitOptimizer::~SplitOptimizer() = default;
SplitOptimizer::SplitOptimizer(SplitOptimizer&&) noexcept = default;
SplitOptimizer& SplitOptimizer::operator=(SplitOptimizer&&) noexcept = default;

const Mlp& SplitOptimizer::mlp() const { return mlp_->mlp; }

const std::string& SplitOptimizer::loss() const { return mlp_->loss.text; }

void SplitOptimizer::check_options() const {
  TORCH_CHECK_VALUE(takes_dropout() || !mlp_->drops(), mlp_->name,
                    ": variables that stay from sweep to sweep go with no Dropout in train mode; call "
                    "model.eval(), or train by RelaxedBCD");
  TORCH_CHECK_VALUE(
      takes_normalization() || !mlp_->normalizes(), mlp_->name,
      ": a LayerNorm joins the units of a row, whose blocks are one by one here; train by RelaxedBCD");
  option_table().check(option_values(), mlp_->depth());
  if (run_) {
    check_takes_folder();
  }
  const OptionRef regularizers = option_table().row("weight_regularizer").in(option_values());
  check_weight_regularizers(*mlp_, *std::get<PerLayer<WeightRegularizer>*>(regularizers), takes_proximal());
  check_options_together();
}

void SplitOptimizer::set_observer(BlockObserver observer) {
  const Call call = mlp_->call(Call::Kind::kChange);
  observer_ = nullptr;
  if (observer) {
    observer_ = [observer = std::move(observer)](const char* block, size_t layer) {
      const ScratchMemory::Use usual(nullptr);
      observer(block, layer);
    };
  }
}

void SplitOptimizer::follow(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                            const std::vector<double>& dropout, const std::vector<at::Tensor>& scales,
                            const std::vector<at::Tensor>& shifts, const std::vector<at::Tensor>& slopes) {
  const Call call = mlp_->call(Call::Kind::kLook);
  const size_t depth = mlp_->depth();
  const Mlp& mlp = mlp_->mlp;
  const bool as_many = weights.size() == depth && biases.size() == depth &&
                       (dropout.empty() || dropout.size() == depth) && scales.size() == mlp.scales.size() &&
                       shifts.size() == mlp.shifts.size() && slopes.size() == mlp.slopes.size();
  TORCH_CHECK_VALUE(as_many, mlp_->name, ": there must be ", depth,
                    " weights, biases and probabilities (got ", weights.size(), ", ", biases.size(), " and ",
                    dropout.size(), "), and as many scales, ", "shifts and slopes as the model has");
  if (mlp_->within_sweep()) {
    return;
  }
  std::vector<AffineMap> now;
  for (size_t l = 0; l < depth; ++l) {
    const auto of = [l](const std::vector<at::Tensor>& list) {
      return list.empty() ? at::Tensor() : list[l];
    };
    now.push_back({weights[l], biases[l], of(scales), of(shifts), of(slopes)});
  }
  mlp_->follow(now, dropout);
}

std::pair<at::Tensor, at::Tensor> SplitOptimizer::checked(const at::Tensor& x, const at::Tensor& y,
                                                          const std::string& of,
                                                          const at::Tensor& sample_weight) {
  const Call call = mlp_->call(Call::Kind::kLook);
  const at::Tensor inputs = mlp_->inputs((of + "x").c_str(), x);
  mlp_->row_weight(sample_weight, inputs.size(0));
  return {inputs, mlp_->targets((of + "y").c_str(), y, inputs.size(0))};
}

at::Tensor SplitOptimizer::joined_targets(const std::vector<at::Tensor>& y) const {
  const Call call = mlp_->call(Call::Kind::kLook);
  return mlp_->joined_targets("y", y);
}

bool SplitOptimizer::tells_classes(const at::Tensor& y) const {
  TORCH_CHECK_VALUE(
      !mlp_->loss.several() || (y.dim() == 2 && y.size(1) == mlp_->parameters.back().weight.size(0)),
      mlp_->name, ": targets of several losses must have a column for each output (got ", y.sizes(), ")");
  const auto is_one_hot = [](const at::Tensor& t) {
    return t.dim() == 2 && t.size(1) > 1 &&
           t.eq(1).sum(1).eq(1).logical_and_(t.ne(0).sum(1).eq(1)).all().item<bool>();
  };
  return !y.is_floating_point() ||
         std::all_of(mlp_->loss.parts.begin(), mlp_->loss.parts.end(), [&](const OutputLoss::Part& part) {
           return !predicts_targets(part.loss) || is_one_hot(part.of(y));
         });
}

void SplitOptimizer::sync() {
  if (mlp_->within_sweep()) {
    return;
  }
  check_options();
  if (mlp_->sync()) {
    moved();
    mlp_->weights_changed = true;
    parameters_changed();
  }
}

void SplitOptimizer::commit() {
  mlp_->commit();
  last_sweep_ = {++sweeps_, ++revision_};
}

void SplitOptimizer::check_current(const SweepId& sweep) const {
  TORCH_CHECK(sweep.revision == revision_, "the report of sweep ", sweep.sweep,
              " was not read before the optimizer moved on (it is at sweep ", sweeps_,
              "); read what you need of a report before the next step or bind");
}

ObjectiveTerms SplitOptimizer::sweep_terms(const SweepId& sweep, bool before) {
  const Call call = mlp_->call(Call::Kind::kLook);
  check_current(sweep);
  return last_sweep_terms(before);
}

std::vector<std::string> SplitOptimizer::option_names() const {
  return option_table().names(/*choices=*/false);
}

std::vector<std::string> SplitOptimizer::choice_names() const {
  return option_table().names(/*choices=*/true);
}

std::vector<double> SplitOptimizer::option(const std::string& name) const {
  return option_numbers(option_values(), option_table().row(name), mlp_->depth());
}

void SplitOptimizer::set_option(const std::string& name, c10::ArrayRef<double> values) {
  const OptionRow& row = option_table().row(name);
  change_options([&] { set_option_numbers(option_values(), row, mlp_->depth(), values); });
}

std::string SplitOptimizer::choice(const std::string& name) const {
  const OptionRow& row = option_table().row(name);
  TORCH_CHECK_VALUE(row.is_choice(), "torchbcd: ", name, " is a number, not a name");
  return get_option(option_values(), row, 0).toStringRef();
}

void SplitOptimizer::set_choice(const std::string& name, const std::string& value) {
  const OptionRow& row = option_table().row(name);
  TORCH_CHECK_VALUE(row.is_choice(), "torchbcd: ", name, " is a number, not a name");
  change_options([&] { torchbcd::set_option(option_values(), row, 0, value); });
}

void SplitOptimizer::set_options(const std::map<std::string, std::vector<double>>& numbers,
                                 const std::map<std::string, std::string>& choices) {
  change_options([&] {
    for (const auto& [name, value] : choices) {
      torchbcd::set_option(option_values(), option_table().row(name), 0, value);
    }
    for (const auto& [name, values] : numbers) {
      set_option_numbers(option_values(), option_table().row(name), mlp_->depth(), values);
    }
  });
}

// All of a change, or none of it.
void SplitOptimizer::change_options(const std::function<void()>& change) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const OptionValues before = option_table().values(option_values(), mlp_->depth());
  try {
    change();
    check_options();
  } catch (...) {
    option_table().restore(option_values(), mlp_->depth(), before);
    throw;
  }
}

c10::IValue SplitOptimizer::layer_options() const {
  c10::impl::GenericList groups = python_list();
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    c10::impl::GenericDict group = python_dict();
    for (const OptionRow& row : option_table().rows()) {
      if (!row.at_start && row.of_layers(option_values())) {
        group.insert(row.name, get_option(option_values(), row, l));
      }
    }
    groups.push_back(group);
  }
  return groups;
}

c10::IValue SplitOptimizer::scheme_options() const {
  c10::impl::GenericDict options = python_dict();
  for (const OptionRow& row : option_table().rows()) {
    if (!row.at_start && !row.of_layers(option_values())) {
      options.insert(row.name, get_option(option_values(), row, 0));
    }
  }
  return options;
}

void SplitOptimizer::set_layer_options(const c10::IValue& groups) {
  const std::vector<c10::IValue> list = as_list("param_groups", groups);
  TORCH_CHECK_VALUE(list.size() == mlp_->depth(), mlp_->name, ": there must be ", mlp_->depth(),
                    " param groups, one for each Linear (got ", list.size(), ")");
  change_options([&] {
    for (const OptionRow& row : option_table().rows()) {
      for (size_t l = 0; !row.at_start && row.of_layers(option_values()) && l < list.size(); ++l) {
        torchbcd::set_option(option_values(), row, l, entry(as_dict("a param group", list[l]), row.name));
      }
    }
  });
}

void SplitOptimizer::set_scheme_options(const c10::IValue& options) {
  change_options([&] {
    for (const auto& item : as_dict("options", options)) {
      const OptionRow& row = option_table().row(item.key().toStringRef());
      TORCH_CHECK_VALUE(!row.of_layers(option_values()), "torchbcd: ", row.name,
                        " is an option of the layers");
      torchbcd::set_option(option_values(), row, 0, item.value());
    }
  });
}

c10::IValue SplitOptimizer::state_dict() {
  const Call call = mlp_->call(Call::Kind::kLook);
  c10::impl::GenericList groups = layer_options().toList();
  int64_t parameters = 0;
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    c10::impl::GenericList own = python_list();  // as torch.optim numbers them
    for (size_t k = tensors_of(mlp_->parameters[l]).size(); k > 0; --k) {
      own.push_back(parameters++);
    }
    c10::impl::GenericDict group = as_dict("a param group", groups.get(l));
    for (const auto& item : group) {
      item.setValue(named_terms(item.value()));
    }
    group.insert("params", own);
  }
  c10::impl::GenericDict own = to_dict(state());
  for (const auto& item : description().toGenericDict()) {
    own.insert(item.key(), item.value());
  }
  own.insert("options", scheme_options());
  c10::impl::GenericDict state = python_dict();
  state.insert("state", python_dict());
  state.insert("param_groups", groups);
  state.insert("torchbcd", own);
  return state;
}

c10::IValue SplitOptimizer::description() const {
  c10::impl::GenericDict own = python_dict();
  own.insert("format", kFormat);
  own.insert("optimizer", kind_of_optimizer(*mlp_));
  own.insert("loss", loss());
  own.insert("activations", texts_of(mlp().activations));
  own.insert("skips", texts_of(mlp().skips));
  return own;
}

void SplitOptimizer::check_description(const c10::IValue& state, const char* whose) const {
  const c10::impl::GenericDict saved = as_dict(whose, state);
  for (const auto& item : description().toGenericDict()) {
    const std::string what = item.key().toStringRef();
    // A state of before there were any skips is one without.
    const c10::IValue theirs = what == "skips" && !saved.contains(what) ? python_list() : entry(saved, what);
    const auto text = [&](const c10::IValue& value) {  // lists of Python's may have types of their own
      return value.isList() ? c10::str(as_list(what.c_str(), value)) : c10::str(value);
    };
    TORCH_CHECK_VALUE(text(theirs) == text(item.value()), mlp_->name, ": ", whose, "'s ", what, " must be ",
                      text(item.value()), " (got ", text(theirs), ")");
  }
}

void SplitOptimizer::load_state_dict(const c10::IValue& state) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const c10::impl::GenericDict dict = as_dict("the state", state);
  const c10::impl::GenericDict own = as_dict("torchbcd", entry(dict, "torchbcd"));
  check_description(own, "the state");
  const c10::impl::GenericDict options = as_dict("options", entry(own, "options")).copy();
  c10::impl::GenericList groups = python_list();
  for (const c10::IValue& group : as_list("param_groups", entry(dict, "param_groups"))) {
    groups.push_back(as_dict("a param group", group).copy());
  }
  for (const OptionRow& row : option_table().rows()) {
    if (row.of_scheme) {
      const c10::IValue saved = entry(options, row.name);
      const c10::IValue mine = get_option(option_values(), row, 0);
      TORCH_CHECK_VALUE(saved == mine, mlp_->name, ": the state's ", row.name, " must be ", mine, " (got ",
                        saved, ")");
    }
    if (!row.at_start && row.of_layers(option_values())) {
      for (const c10::IValue& group : groups) {
        option_table().complete(group.toGenericDict(), row);
      }
    } else if (!row.at_start) {
      option_table().complete(options, row);
    }
  }
  const SavedState saved = from_dict(own, mlp_->committed[0].weight.device());
  const OptionValues before = option_table().values(option_values(), mlp_->depth());
  try {
    set_layer_options(groups);
    set_scheme_options(options);
    load_state(saved);
  } catch (...) {
    option_table().restore(option_values(), mlp_->depth(), before);
    throw;
  }
}

void SplitOptimizer::loaded(int64_t sweeps) {
  sweeps_ = sweeps;
  last_sweep_ = {};
  mlp_->unchecked = true;
  mlp_->weights_changed = true;
  moved();
}

c10::IValue SplitOptimizer::documented_options() const {
  c10::impl::GenericList rows = python_list();
  for (const OptionRow& row : option_table().rows()) {
    c10::impl::GenericList choices = python_list();
    for (const std::string& choice : row.choices) {
      choices.push_back(choice);
    }
    c10::impl::GenericDict described = python_dict();
    described.insert("name", row.name);
    described.insert("of_layers", row.of_layers(option_values()));
    described.insert("at_start", row.at_start);
    described.insert("value", get_option(option_values(), row, 0));
    described.insert("range", row.range.words);
    described.insert("choices", choices);
    described.insert("help", row.help);
    rows.push_back(described);
  }
  return rows;
}

}  // namespace torchbcd
