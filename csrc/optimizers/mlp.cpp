#include "torchbcd/mlp.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/hardsigmoid.h>
#include <ATen/ops/hardswish.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <sstream>
#include <system_error>
#include <typeinfo>
#include <utility>

#include "kernels/registry.h"
#include "optimizers/found_modules.h"

namespace torchbcd {
namespace {

constexpr const char* kSupported =
    "Flatten (first), Linear, Identity, ReLU, LeakyReLU, PReLU (of one slope that requires no gradients), "
    "Sigmoid, Tanh, Hardtanh, ReLU6, SiLU, GELU, ELU, SELU, CELU, Softplus, Mish, LogSigmoid, Softsign, "
    "Tanhshrink, Softshrink, Hardshrink, Threshold, and of torchbcd::nn Hardsigmoid, Hardswish, Sine, Sign "
    "and Polynomial";

// The module as a T; null for anything else, subclasses among it: what they compute is not known.
template <typename T>
const T* exactly(const torch::nn::Module& module) {
  return typeid(module) == typeid(T) ? module.as<T>() : nullptr;
}

// The registry of activation modules: a new one is a line here beside its functor.
std::optional<Activation> activation_of(const torch::nn::Module& module) {
  if (exactly<torch::nn::IdentityImpl>(module) != nullptr) {
    return Activation{"identity", {}};
  }
  if (exactly<torch::nn::ReLUImpl>(module) != nullptr) {
    return Activation{"relu", {}};
  }
  if (const auto* leaky = exactly<torch::nn::LeakyReLUImpl>(module)) {
    return Activation{"leaky_relu", {leaky->options.negative_slope()}};
  }
  if (exactly<torch::nn::SigmoidImpl>(module) != nullptr) {
    return Activation{"sigmoid", {}};
  }
  if (exactly<torch::nn::TanhImpl>(module) != nullptr) {
    return Activation{"tanh", {}};
  }
  if (const auto* hard = exactly<torch::nn::HardtanhImpl>(module)) {
    return Activation{"hardtanh", {hard->options.min_val(), hard->options.max_val()}};
  }
  if (exactly<torch::nn::ReLU6Impl>(module) != nullptr) {
    return Activation{"hardtanh", {0, 6}};
  }
  if (exactly<torch::nn::SiLUImpl>(module) != nullptr) {
    return Activation{"silu", {}};
  }
  if (const auto* prelu = exactly<torch::nn::PReLUImpl>(module)) {  // whose slope nothing trains
    const at::Tensor& slope = prelu->weight;
    return slope.numel() == 1 && !slope.requires_grad()
               ? std::optional<Activation>({"leaky_relu", {slope.item<double>()}})
               : std::nullopt;
  }
  if (const auto* gelu = exactly<torch::nn::GELUImpl>(module)) {
    return Activation{gelu->options.approximate() == "tanh" ? "gelu_tanh" : "gelu", {}};
  }
  if (const auto* elu = exactly<torch::nn::ELUImpl>(module)) {
    return Activation{"elu", {elu->options.alpha()}};
  }
  if (exactly<torch::nn::SELUImpl>(module) != nullptr) {
    return Activation{"elu", {1.6732632423543772848, 1.0507009873554804934}};
  }
  if (const auto* celu = exactly<torch::nn::CELUImpl>(module)) {
    return Activation{"elu", {celu->options.alpha(), 1, 1 / celu->options.alpha()}};
  }
  if (const auto* softplus = exactly<torch::nn::SoftplusImpl>(module)) {
    return Activation{"softplus", {softplus->options.beta(), softplus->options.threshold()}};
  }
  if (exactly<torch::nn::MishImpl>(module) != nullptr) {
    return Activation{"mish", {}};
  }
  if (exactly<torch::nn::LogSigmoidImpl>(module) != nullptr) {
    return Activation{"logsigmoid", {}};
  }
  if (exactly<torch::nn::SoftsignImpl>(module) != nullptr) {
    return Activation{"softsign", {}};
  }
  if (exactly<torch::nn::TanhshrinkImpl>(module) != nullptr) {
    return Activation{"tanhshrink", {}};
  }
  if (const auto* shrink = exactly<torch::nn::SoftshrinkImpl>(module)) {
    return Activation{"softshrink", {shrink->options.lambda()}};
  }
  if (const auto* shrink = exactly<torch::nn::HardshrinkImpl>(module)) {
    return Activation{"hardshrink", {shrink->options.lambda()}};
  }
  if (const auto* threshold = exactly<torch::nn::ThresholdImpl>(module)) {
    return Activation{"threshold", {threshold->options.threshold(), threshold->options.value()}};
  }
  if (exactly<nn::HardswishImpl>(module) != nullptr) {
    return Activation{"hardswish", {}};
  }
  if (exactly<nn::SineImpl>(module) != nullptr) {
    return Activation{"sine", {}};
  }
  if (exactly<nn::HardsigmoidImpl>(module) != nullptr) {
    return Activation{"hardsigmoid", {}};
  }
  if (exactly<nn::SignImpl>(module) != nullptr) {
    return Activation{"sign", {}};
  }
  if (const auto* polynomial = exactly<nn::PolynomialImpl>(module)) {
    return Activation{"polynomial", polynomial->coefficients()};
  }
  return std::nullopt;
}

}  // namespace

Activation Activation::parse(const std::string& text) {
  const size_t open = text.find('(');
  Activation activation{text.substr(0, open), {}};
  if (open == std::string::npos) {
    return activation;
  }
  TORCH_CHECK_VALUE(text.back() == ')',
                    "torchbcd: activation must be a name, or a name and numbers, such as ",
                    "'leaky_relu(0.2)' (got '", text, "')");
  std::istringstream list(text.substr(open + 1, text.size() - open - 2));
  for (std::string item; std::getline(list, item, ',');) {
    const char* begin = item.data() + std::min(item.find_first_not_of(' '), item.size());
    const char* end = item.data() + item.size();
    double value = 0;
    const auto [read, error] = std::from_chars(begin, end, value);
    TORCH_CHECK_VALUE(error == std::errc() && read == end, "torchbcd: activation '", text,
                      "' must have numbers in its parentheses (got '", item, "')");
    activation.parameters.push_back(value);
  }
  return activation;
}

std::string Activation::text() const {
  if (parameters.empty()) {
    return name;
  }
  std::string text = name + "(";
  for (size_t i = 0; i < parameters.size(); ++i) {
    char digits[32];  // the shortest that reads back as the same number
    const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), parameters[i]);
    text.append(i == 0 ? "" : ", ").append(digits, end);
  }
  return text + ")";
}

size_t modules_before_layers(const std::vector<FoundModule>& modules) {
  using Kind = FoundModule::Kind;
  const auto last_of = [](Kind kind, auto end, auto begin) {
    return std::find_if(std::make_reverse_iterator(end), std::make_reverse_iterator(begin),
                        [kind](const FoundModule& m) { return m.kind == kind; })
        .base();  // behind it; `begin` where there is none
  };
  const auto after_unknown =
      last_of(Kind::kUnknown, last_of(Kind::kLinear, modules.end(), modules.begin()), modules.begin());
  const auto first = std::find_if(after_unknown, modules.end(),
                                  [](const FoundModule& m) { return m.kind == Kind::kLinear; });
  const auto count = static_cast<size_t>(first - modules.begin());
  const bool flattened = count == 1 && modules[0].kind != Kind::kActivation;  // by the layers themselves
  return first == modules.end() || (after_unknown == modules.begin() && flattened) ? 0 : count;
}

Mlp mlp_of(const std::vector<FoundModule>& modules, const std::string& supported) {
  using Kind = FoundModule::Kind;
  Mlp mlp;
  mlp.can_be_frozen = true;
  const std::string known = "is not supported; supported are " + supported;
  const auto check_module = [](const FoundModule& found, bool holds, const std::string& reason) {
    TORCH_CHECK_VALUE(holds, "module ", found.position, " of the model, ", found.text, ", ", reason);
  };
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
  bool activated = true;  // whether the last Linear has its activation
  for (size_t i = begin; i < modules.size(); ++i) {
    const FoundModule& found = modules[i];
    const auto check = [&](bool holds, const std::string& reason) { check_module(found, holds, reason); };
    check(found.kind != Kind::kUnknown, known);
    if (found.kind == Kind::kActivation) {
      check(!mlp.weights.empty(), "must follow a Linear module");
      check(!activated, "follows another activation");
      mlp.activations.back() = found.activation;
      activated = true;
    } else if (found.kind == Kind::kLinear) {
      if (!mlp.weights.empty()) {
        const int64_t width = mlp.weights.back().size(0);
        check(width == found.weight.size(1),
              c10::str("must take ", width, " inputs, the outputs of the one before (got ",
                       found.weight.size(1), ")"));
      }
      mlp.weights.push_back(found.weight);
      mlp.biases.push_back(found.bias);
      mlp.activations.push_back({"identity", {}});
      activated = false;
    } else {
      check(i == 0, "must be the first module");
      check(found.kind == Kind::kFlatten, "must flatten all but the first dimension");
      mlp.flatten = true;
    }
  }
  TORCH_CHECK_VALUE(!mlp.weights.empty(), "model must have at least one Linear module (got none)");
  return mlp;
}

namespace {

std::vector<FoundModule> find_modules(const torch::nn::Sequential& model) {
  using Kind = FoundModule::Kind;
  std::vector<FoundModule> modules;
  for (const std::shared_ptr<torch::nn::Module>& module : model->children()) {
    FoundModule found{Kind::kUnknown, std::to_string(modules.size()), module->name(), {}, {}, {}};
    if (const auto* flatten = exactly<torch::nn::FlattenImpl>(*module)) {
      const bool whole = flatten->options.start_dim() == 1 && flatten->options.end_dim() == -1;
      found.kind = whole ? Kind::kFlatten : Kind::kPartialFlatten;
    } else if (const auto* linear = exactly<torch::nn::LinearImpl>(*module)) {
      found.kind = Kind::kLinear;
      found.weight = linear->weight;
      found.bias = linear->bias;
    } else if (std::optional<Activation> activation = activation_of(*module)) {
      found.kind = Kind::kActivation;
      found.activation = std::move(*activation);
    }
    const std::vector<at::Tensor> parameters = module->parameters();
    found.trainable = std::any_of(parameters.begin(), parameters.end(),
                                  [](const at::Tensor& p) { return p.requires_grad(); });
    modules.push_back(std::move(found));
  }
  return modules;
}

// Modules in eval mode, until it goes.
class EvalMode {
 public:
  explicit EvalMode(const std::vector<torch::nn::AnyModule>& modules) {
    for (const torch::nn::AnyModule& any : modules) {
      for (const std::shared_ptr<torch::nn::Module>& module : any.ptr()->modules()) {
        were_.emplace_back(module, module->is_training());
      }
      any.ptr()->eval();
    }
  }
  ~EvalMode() {
    for (const auto& [module, training] : were_) {  // a parent before its children, whom it reaches
      module->train(training);
    }
  }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> were_;
};

Mlp mlp_of_model(const torch::nn::Sequential& model, const std::vector<FoundModule>& found) {
  Mlp mlp = mlp_of(found, kSupported);
  if (const size_t count = modules_before_layers(found)) {
    std::vector<torch::nn::AnyModule> modules(model->begin(), model->begin() + count);
    mlp.frozen_first = [modules](const at::Tensor& x) mutable {
      const EvalMode eval(modules);
      at::Tensor features = x;
      for (torch::nn::AnyModule& module : modules) {
        for (const at::Tensor& parameter : module.ptr()->parameters()) {
          TORCH_CHECK_VALUE(!parameter.requires_grad(), "module ", module.ptr()->name(),
                            " before the layers has a parameter that requires gradients by now");
        }
        features = module.forward<at::Tensor>(features);
      }
      return features;
    };
  }
  return mlp;
}

}  // namespace

Mlp read_mlp(const torch::nn::Sequential& model) { return mlp_of_model(model, find_modules(model)); }

std::function<Mlp()> reader_of(const torch::nn::Sequential& model) {
  return [model, then = find_modules(model), were = model->children()] {
    const std::vector<FoundModule> now = find_modules(model);
    const std::vector<std::shared_ptr<torch::nn::Module>> are = model->children();
    for (size_t i = 0; i < std::min(were.size(), are.size()); ++i) {
      TORCH_CHECK_VALUE(were[i] == are[i] && then[i].activation.text() == now[i].activation.text() &&
                            then[i].bias.defined() == now[i].bias.defined(),
                        "module ", i, " of the model, ", now[i].text,
                        ", is another one now or has been changed; make a new optimizer");
    }
    TORCH_CHECK_VALUE(were.size() == are.size(), "the model has ", are.size(), " modules and had ",
                      were.size(), " when the optimizer was made; make a new one");
    return mlp_of_model(model, now);
  };
}

namespace nn {

at::Tensor HardsigmoidImpl::forward(const at::Tensor& u) { return at::hardsigmoid(u); }

at::Tensor HardswishImpl::forward(const at::Tensor& u) { return at::hardswish(u); }

at::Tensor SineImpl::forward(const at::Tensor& u) { return at::sin(u); }

at::Tensor SignImpl::forward(const at::Tensor& u) { return at::where(at::ge(u, 0), 1.0, -1.0).to(u.dtype()); }

PolynomialImpl::PolynomialImpl(std::vector<double> coefficients) : coefficients_(std::move(coefficients)) {
  activation_from("polynomial", coefficients_);  // throws what there is to say against them
}

at::Tensor PolynomialImpl::forward(const at::Tensor& u) {
  at::Tensor value = at::full_like(u, coefficients_.back());
  for (size_t k = coefficients_.size() - 1; k-- > 0;) {
    value = value * u + coefficients_[k];
  }
  return value;
}

}  // namespace nn
}  // namespace torchbcd
