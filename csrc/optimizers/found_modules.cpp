// The one judge of what a model's modules make: where its layers begin, and whether they are layers.
#include "optimizers/found_modules.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace torchbcd {
namespace {

using Kind = FoundModule::Kind;

void check_module(const FoundModule& found, bool holds, const std::string& reason) {
  TORCH_CHECK_VALUE(holds, "module ", found.position, " of the model, ", found.text, ", ", reason);
}

/// An Mlp, module by module.
class Layers {
 public:
  explicit Layers(std::string known) : known_(std::move(known)) {}

  void add(const FoundModule& found, bool is_first) {
    check_module(found, found.kind != Kind::kUnknown, known_);
    for (int k = 0; k < found.begins; ++k) {
      open_.push_back({last(), 0, activated_ || dropped_ != nullptr});
    }
    if (found.kind == Kind::kActivation) {
      add_activation(found);
    } else if (found.kind == Kind::kDropout) {
      add_dropout(found);
    } else if (found.kind == Kind::kLinear) {
      add_linear(found);
    } else {
      check_module(found, is_first && found.begins == 0, "must be the first module");
      check_module(found, found.kind == Kind::kFlatten, "must flatten all but the first dimension");
      mlp_.flatten = true;
    }
    for (int k = 0; k < found.ends; ++k) {
      end_residual(found);
    }
  }

  Mlp done() && {
    TORCH_CHECK_VALUE(mlp_.depth() > 0, "model must have at least one Linear module (got none)");
    if (dropped_ != nullptr) {
      check_module(*dropped_, false, "must have a Linear module behind it");
    }
    for (Skip& skip : mlp_.skips) {  // without an activation U and V are one
      skip.activated =
          skip.activated || (mlp_.activations[skip.from].name == "identity" && !drops_[skip.from]);
    }
    return std::move(mlp_);
  }

 private:
  int64_t last() const { return static_cast<int64_t>(mlp_.depth()) - 1; }

  void add_activation(const FoundModule& found) {
    check_module(found, mlp_.depth() > 0, "must follow a Linear module");
    check_module(found, !activated_, "follows another activation");
    check_module(found, dropped_ == nullptr, "follows a Dropout, and must stand before it");
    mlp_.activations.back() = found.activation;
    activated_ = true;
  }

  void add_dropout(const FoundModule& found) {
    check_module(found, mlp_.depth() > 0, "must follow a Linear module or an activation");
    check_module(found, dropped_ == nullptr, "follows another Dropout");
    mlp_.activations.back().dropout = found.activation.dropout;
    drops_.back() = true;
    dropped_ = &found;
  }

  void add_linear(const FoundModule& found) {
    if (mlp_.depth() > 0) {
      const int64_t width = mlp_.weights.back().size(0);
      check_module(found, width == found.weight.size(1),
                   c10::str("must take ", width, " inputs, the outputs of the one before (got ",
                            found.weight.size(1), ")"));
    }
    mlp_.weights.push_back(found.weight);
    mlp_.biases.push_back(found.bias);
    mlp_.activations.push_back({"identity", {}});
    drops_.push_back(false);
    activated_ = false;
    dropped_ = nullptr;
  }

  void end_residual(const FoundModule& found) {
    check_module(found, !activated_ && dropped_ == nullptr,
                 "ends a Residual, whose branch must end with a Linear module");
    Skip skip = open_.back();
    open_.pop_back();
    skip.to = last();
    check_module(found, skip.to - skip.from >= 2,
                 "ends a Residual, whose branch must hold at least two Linear modules");
    const at::Tensor& of = mlp_.weights[std::max<int64_t>(skip.from, 0)];
    const int64_t width = skip.from < 0 ? of.size(1) : of.size(0);
    check_module(found, width == found.weight.size(0),
                 c10::str("ends a Residual of ", width, " inputs, and must have as many outputs (got ",
                          found.weight.size(0), ")"));
    mlp_.skips.push_back(skip);
  }

  std::string known_;  // what is said of a module that is not
  Mlp mlp_;
  bool activated_ = true;                 // whether the last Linear has its activation
  const FoundModule* dropped_ = nullptr;  // and the Dropout behind it
  std::vector<bool> drops_;               // whether each has one, in train mode or not
  std::vector<Skip> open_;                // of the Residuals that have begun, without their ends
};

}  // namespace

size_t modules_before_layers(const std::vector<FoundModule>& modules) {
  // How many Residuals a module stands within that began before it.
  std::vector<int> within = {0};
  for (const FoundModule& m : modules) {
    within.push_back(within.back() + m.begins - m.ends);
  }
  const auto splits_a_residual = [&](auto at) { return within[at - modules.begin()] > 0; };
  const auto last_of = [](Kind kind, auto end, auto begin) {
    return std::find_if(std::make_reverse_iterator(end), std::make_reverse_iterator(begin),
                        [kind](const FoundModule& m) { return m.kind == kind; })
        .base();  // behind it; `begin` where there is none
  };
  auto after_unknown =
      last_of(Kind::kUnknown, last_of(Kind::kLinear, modules.end(), modules.begin()), modules.begin());
  while (splits_a_residual(after_unknown)) {
    ++after_unknown;
  }
  auto first = std::find_if(after_unknown, modules.end(),
                            [](const FoundModule& m) { return m.kind == Kind::kLinear; });
  while (first != modules.end() && splits_a_residual(first)) {
    --first;
  }
  const auto count = static_cast<size_t>(first - modules.begin());
  const bool flattened =
      count == 1 && (modules[0].kind == Kind::kFlatten ||
                     modules[0].kind == Kind::kPartialFlatten);  // by the layers themselves
  return first == modules.end() || (after_unknown == modules.begin() && flattened) ? 0 : count;
}

Mlp mlp_of(const std::vector<FoundModule>& modules, const std::string& supported) {
  const std::string known = "is not supported; supported are " + supported;
  const size_t begin = modules_before_layers(modules);
  bool trained = false;
  // Names what is unknown and trained itself, or stands behind layers that are.
  for (size_t i = 0; i < begin; ++i) {
    trained = trained || modules[i].trainable;
    check_module(modules[i], !trained || modules[i].kind != Kind::kUnknown,
                 known +
                     "; any module may stand before the layers, once no parameter requires gradients "
                     "there: requires_grad_(False)");
  }
  Layers layers(known);
  for (size_t i = begin; i < modules.size(); ++i) {
    layers.add(modules[i], i == 0);
  }
  Mlp mlp = std::move(layers).done();
  mlp.can_be_frozen = true;
  return mlp;
}

}  // namespace torchbcd
