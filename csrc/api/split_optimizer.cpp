#include "torchbcd/split_optimizer.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

#include "api/named_option.h"
#include "engine/mlp_trainer.h"

namespace torchbcd {

using detail::NamedOption;
using detail::python_dict;
using detail::python_list;

namespace {

c10::IValue entry(const c10::impl::GenericDict& dict, const char* key) {
  TORCH_CHECK_VALUE(dict.contains(key), "torchbcd: the state must have an entry '", key, "'");
  return dict.at(key);
}

c10::impl::GenericDict as_dict(const char* what, const c10::IValue& value) {
  TORCH_CHECK_VALUE(value.isGenericDict(), "torchbcd: ", what, " must be a dict (got ", value.tagKind(), ")");
  return value.toGenericDict();
}

// A list of Python's may have become a list of tensors on the way.
std::vector<c10::IValue> as_list(const char* what, const c10::IValue& value) {
  TORCH_CHECK_VALUE(value.isList(), "torchbcd: ", what, " must be a list (got ", value.tagKind(), ")");
  return value.toListRef().vec();
}

}  // namespace

SplitOptimizer::SplitOptimizer(Mlp mlp, std::string loss, double loss_weight, bool mean_loss,
                               std::unique_ptr<MlpTrainer> trainer)
    : mlp_(std::move(mlp)),
      loss_(std::move(loss)),
      loss_weight_(loss_weight),
      mean_loss_(mean_loss),
      trainer_(std::move(trainer)) {}

SplitOptimizer::~SplitOptimizer() = default;
SplitOptimizer::SplitOptimizer(SplitOptimizer&&) noexcept = default;
SplitOptimizer& SplitOptimizer::operator=(SplitOptimizer&&) noexcept = default;

int64_t SplitOptimizer::sweeps() const { return trainer_->sweeps(); }

bool SplitOptimizer::bound() const { return trainer_->bound(); }

void SplitOptimizer::set_observer(BlockObserver observer) { trainer_->set_observer(std::move(observer)); }

at::Tensor SplitOptimizer::inputs(const at::Tensor& x) const {
  return mlp_.flatten && x.defined() && x.dim() > 1 ? x.flatten(1) : x;
}

std::vector<NamedOption> SplitOptimizer::scheme_options() {
  return {{"loss_weight", &loss_weight_}, {"mean_loss", &mean_loss_}};
}

std::vector<NamedOption> SplitOptimizer::counters() { return {}; }

void SplitOptimizer::apply_options() { trainer_->set_loss_weight(loss_weight_, mean_loss_); }

std::vector<std::string> SplitOptimizer::option_names() {
  std::vector<std::string> names;
  for (const std::vector<NamedOption>& options : {layer_options(0), scheme_options()}) {
    for (const NamedOption& option : options) {
      names.emplace_back(option.name);
    }
  }
  return names;
}

// Every layer's option of that name, or the optimizer's own.
std::vector<NamedOption> SplitOptimizer::named(const std::string& name) {
  std::vector<NamedOption> found;
  const auto look = [&](const std::vector<NamedOption>& options) {
    for (const NamedOption& option : options) {
      if (option.name == name) {
        found.push_back(option);
      }
    }
  };
  for (size_t l = 0; l < mlp_.depth(); ++l) {
    look(layer_options(l));
  }
  look(scheme_options());
  if (found.empty()) {
    std::string known;
    for (const std::string& other : option_names()) {
      known.append(known.empty() ? "" : ", ").append(other);
    }
    TORCH_CHECK_VALUE(false, "torchbcd: option must be one of ", known, " (got '", name, "')");
  }
  return found;
}

std::vector<double> SplitOptimizer::option(const std::string& name) {
  std::vector<double> numbers;
  for (const NamedOption& option : named(name)) {
    option.append_to(numbers);
  }
  return numbers;
}

void SplitOptimizer::set_option(const std::string& name, c10::ArrayRef<double> values) {
  const std::vector<NamedOption> options = named(name);
  const size_t size = options.front().size();
  TORCH_CHECK_VALUE(values.size() == size || values.size() == size * options.size(), "torchbcd: ", name,
                    " must be ", size, " or ", size * options.size(), " numbers (got ", values.size(), ")");
  const std::vector<double> before = option(name);
  const auto assign = [&](c10::ArrayRef<double> numbers) {
    const size_t stride = numbers.size() == size ? 0 : size;
    for (size_t i = 0; i < options.size(); ++i) {
      options[i].set(numbers.slice(i * stride, size));
    }
    apply_options();
  };
  try {
    assign(values);
  } catch (...) {
    assign(before);
    throw;
  }
}

c10::IValue SplitOptimizer::state_dict() {
  c10::impl::GenericList groups = python_list();
  int64_t parameters = 0;
  for (size_t l = 0; l < mlp_.depth(); ++l) {
    c10::impl::GenericDict group = python_dict();
    for (const NamedOption& option : layer_options(l)) {
      group.insert(option.name, option.to_python());
    }
    c10::impl::GenericList own = python_list();  // as torch.optim numbers them
    own.push_back(parameters++);
    if (mlp_.biases[l].defined()) {
      own.push_back(parameters++);
    }
    group.insert("params", own);
    groups.push_back(group);
  }
  c10::impl::GenericDict engine = python_dict();
  for (const auto& [name, list] : tensors()) {
    c10::impl::GenericList values = python_list();
    for (const at::Tensor& t : list) {
      values.push_back(t.defined() ? c10::IValue(t) : c10::IValue());
    }
    engine.insert(name, values);
  }
  c10::impl::GenericDict state = python_dict();
  state.insert("state", python_dict());
  state.insert("param_groups", groups);
  state.insert("engine", engine);
  for (const NamedOption& counter : counters()) {
    state.insert(counter.name, counter.to_python());
  }
  return state;
}

void SplitOptimizer::load_state_dict(const c10::IValue& state) {
  const c10::impl::GenericDict dict = as_dict("the state", state);
  const std::vector<c10::IValue> groups = as_list("param_groups", entry(dict, "param_groups"));
  TORCH_CHECK_VALUE(groups.size() == mlp_.depth(), "torchbcd: the state must have ", mlp_.depth(),
                    " param groups (got ", groups.size(), ")");
  std::vector<std::pair<NamedOption, c10::IValue>> settings;
  for (size_t l = 0; l < mlp_.depth(); ++l) {
    const c10::impl::GenericDict group = as_dict("a param group", groups[l]);
    for (const NamedOption& option : layer_options(l)) {
      settings.emplace_back(option, entry(group, option.name));
    }
  }
  for (const NamedOption& counter : counters()) {
    settings.emplace_back(counter, entry(dict, counter.name));
  }
  Tensors loaded;
  for (const auto& item : as_dict("engine", entry(dict, "engine"))) {
    std::vector<at::Tensor>& list = loaded[item.key().toStringRef()];
    for (const c10::IValue& t : as_list("an entry of engine", item.value())) {
      TORCH_CHECK_VALUE(t.isNone() || t.isTensor(), "torchbcd: engine must hold tensors (got ", t.tagKind(),
                        ")");
      list.push_back(t.isNone() ? at::Tensor() : t.toTensor());
    }
  }
  std::vector<std::pair<NamedOption, c10::IValue>> before;
  before.reserve(settings.size());
  for (const auto& [option, value] : settings) {
    before.emplace_back(option, option.to_python());
  }
  const auto assign = [&](const std::vector<std::pair<NamedOption, c10::IValue>>& values) {
    for (const auto& [option, value] : values) {
      option.from_python(value);
    }
    apply_options();
  };
  try {
    assign(settings);
    trainer_->load_state(loaded);
  } catch (...) {
    assign(before);
    throw;
  }
}

Tensors SplitOptimizer::tensors() const { return trainer_->state(); }

void SplitOptimizer::load_tensors(const Tensors& tensors) { trainer_->load_state(tensors); }

}  // namespace torchbcd
