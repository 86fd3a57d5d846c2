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

// What more there is to say of a module that is not supported.
std::string reason_of(const std::string& text) {
  if (text.find("BatchNorm") != std::string::npos) {
    return ", since its statistics join all rows, of which blocks take each by itself; a LayerNorm does not";
  }
  if (text.find("Conv") != std::string::npos) {
    return ", since its weights are shared by places, so that a step of their block does little of what its "
           "residual asks for; it may stand before the layers, frozen";
  }
  return "";
}

std::string not_supported(const FoundModule& found, const std::string& supported) {
  return "is not supported" + reason_of(found.text) + "; supported are " + supported;
}

// Of a LayerNorm.
constexpr const char* kNoLayerBefore =
    "must follow a Linear module; before the first one it may stand once its parameters require no "
    "gradients, for which that Linear makes up: requires_grad_(False)";

/// An Mlp, module by module.
class Layers {
 public:
  explicit Layers(std::string known) : known_(std::move(known)) {}

  void add(const FoundModule& found, bool is_first) {
    check_module(found, found.kind != Kind::kUnknown, not_supported(found, known_));
    for (int k = 0; k < found.begins; ++k) {
      const bool begun = activated_ || normalized_ || dropped_ != nullptr;
      open_.push_back({last(), 0, begun});
      midway_ = midway_ || (begun && mlp_.depth() > 0);
    }
    check_module(found, !midway_ || found.kind == Kind::kLinear,
                 "begins a Residual, or stands behind one that begins, within what is between two Linear "
                 "modules; a Residual must begin before or behind all of it");
    if (found.kind == Kind::kActivation) {
      add_activation(found);
    } else if (found.kind == Kind::kLayerNorm) {
      add_layer_norm(found);
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
    for (const FoundModule* behind : {dropped_, normalized_}) {
      if (behind != nullptr) {
        check_module(*behind, false, "must have a Linear module behind it");
      }
    }
    for (Skip& skip : mlp_.skips) {  // without an activation U and V are one
      if (skip.from >= 0) {
        const Activation& activation = mlp_.activations[skip.from];
        skip.activated = skip.activated || (activation.name == "identity" &&
                                            activation.normalization.none() && !drops_[skip.from]);
      }
    }
    const auto there_are = [](const std::vector<at::Tensor>& list) {
      return std::any_of(list.begin(), list.end(), [](const at::Tensor& t) { return t.defined(); });
    };
    if (!there_are(mlp_.scales) && !there_are(mlp_.shifts)) {
      mlp_.scales.clear();
      mlp_.shifts.clear();
    }
    if (!there_are(mlp_.slopes)) {
      mlp_.slopes.clear();
    }
    return std::move(mlp_);
  }

 private:
  int64_t last() const { return static_cast<int64_t>(mlp_.depth()) - 1; }

  void add_activation(const FoundModule& found) {
    check_module(found, mlp_.depth() > 0, "must follow a Linear module");
    check_module(found, !activated_, "follows another activation");
    check_module(found, dropped_ == nullptr, "follows a Dropout, and must stand before it");
    const Normalization before = mlp_.activations.back().normalization;
    mlp_.activations.back() = found.activation;
    mlp_.activations.back().normalization = before;
    mlp_.slopes.back() = found.weight;
    activated_ = true;
  }

  void add_layer_norm(const FoundModule& found) {
    check_module(found, mlp_.depth() > 0, kNoLayerBefore);
    check_module(found, normalized_ == nullptr, "follows another LayerNorm");
    check_module(found, dropped_ == nullptr, "follows a Dropout, and must stand before it");
    const int64_t width = mlp_.weights.back().size(0);
    check_module(found, found.shape == std::vector<int64_t>{width},
                 c10::str("must normalise over ", width, " units, the outputs of the one before (got ",
                          at::IntArrayRef(found.shape), ")"));
    using Place = Normalization::Place;
    mlp_.activations.back().normalization = {activated_ ? Place::kBehind : Place::kBefore, found.eps};
    mlp_.scales.back() = found.weight;
    mlp_.shifts.back() = found.bias;
    normalized_ = &found;
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
    mlp_.scales.emplace_back();
    mlp_.shifts.emplace_back();
    mlp_.slopes.emplace_back();
    drops_.push_back(false);
    activated_ = false;
    midway_ = false;
    normalized_ = nullptr;
    dropped_ = nullptr;
  }

  void end_residual(const FoundModule& found) {
    check_module(found, !activated_ && normalized_ == nullptr && dropped_ == nullptr,
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

  std::string known_;  // the modules that are supported
  Mlp mlp_;
  bool activated_ = true;                    // whether the last Linear has its activation
  bool midway_ = false;                      // whether a Residual has begun behind that, or what is beside it
  const FoundModule* normalized_ = nullptr;  // its LayerNorm
  const FoundModule* dropped_ = nullptr;     // and the Dropout behind it
  std::vector<bool> drops_;                  // whether each has one, in train mode or not
  std::vector<Skip> open_;                   // of the Residuals that have begun, without their ends
};

}  // namespace

size_t modules_before_layers(const std::vector<FoundModule>& modules) {
  // A LayerNorm that is behind no module that is trained runs as it is, too.
  const auto first_trained =
      std::find_if(modules.begin(), modules.end(), [](const FoundModule& m) { return m.trainable; });
  const FoundModule* trained = modules.data() + (first_trained - modules.begin());
  const auto runs_as_it_is = [trained](const FoundModule& m) {
    return m.kind == Kind::kUnknown || (m.kind == Kind::kLayerNorm && &m < trained);
  };
  // How many Residuals a module stands within that began before it.
  std::vector<int> within = {0};
  for (const FoundModule& m : modules) {
    within.push_back(within.back() + m.begins - m.ends);
  }
  const auto splits_a_residual = [&](auto at) { return within[at - modules.begin()] > 0; };
  const auto behind_last = [&modules](const auto& is, auto end) {  // the first module where there is none
    return std::find_if(std::make_reverse_iterator(end), std::make_reverse_iterator(modules.begin()), is)
        .base();
  };
  const auto is_linear = [](const FoundModule& m) { return m.kind == Kind::kLinear; };
  auto after_unknown = behind_last(runs_as_it_is, behind_last(is_linear, modules.end()));
  while (splits_a_residual(after_unknown)) {
    ++after_unknown;
  }
  auto first = std::find_if(after_unknown, modules.end(), is_linear);
  while (first != modules.end() && splits_a_residual(first)) {
    --first;
  }
  const auto count = static_cast<size_t>(first - modules.begin());
  const bool flattened =
      count == 1 && (modules[0].kind == Kind::kFlatten ||
                     modules[0].kind == Kind::kPartialFlatten);  // by the layers themselves
  return first == modules.end() || (after_unknown == modules.begin() && flattened) ? 0 : count;
}

Mlp mlp_of(const std::vector<FoundModule>& modules, size_t begin, const std::string& supported) {
  bool trained = false;
  // Names what is unknown and trained itself, or stands behind layers that are.
  for (size_t i = 0; i < begin; ++i) {
    trained = trained || modules[i].trainable;
    check_module(modules[i], !trained || modules[i].kind != Kind::kUnknown,
                 not_supported(modules[i], supported) +
                     "; any module may stand before the layers, once no parameter requires gradients "
                     "there: requires_grad_(False)");
    check_module(modules[i], modules[i].kind != Kind::kLayerNorm || !modules[i].trainable, kNoLayerBefore);
  }
  Layers layers(supported);
  for (size_t i = begin; i < modules.size(); ++i) {
    layers.add(modules[i], i == 0);
  }
  Mlp mlp = std::move(layers).done();
  mlp.can_be_frozen = true;
  return mlp;
}

}  // namespace torchbcd
