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
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <algorithm>
#include <typeinfo>
#include <utility>

#include "kernels/registry.h"
#include "optimizers/found_modules.h"

namespace torchbcd {
namespace {

constexpr const char* kSupported =
    "Flatten (first), Linear, LayerNorm, Dropout, Identity, ReLU, LeakyReLU, PReLU (of one slope), "
    "Sigmoid, Tanh, Hardtanh, ReLU6, SiLU, GELU, ELU, SELU, CELU, Softplus, Mish, LogSigmoid, Softsign, "
    "Tanhshrink, Softshrink, Hardshrink, Threshold, and of torchbcd::nn Hardsigmoid, Hardswish, Sine, Sign, "
    "Polynomial and Residual";

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
  if (const auto* prelu = exactly<torch::nn::PReLUImpl>(module)) {
    const at::Tensor& slope = prelu->weight;
    if (slope.numel() != 1) {
      return std::nullopt;
    }
    return slope.requires_grad() ? Activation{"prelu", {}} : Activation{"leaky_relu", {slope.item<double>()}};
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
  Activation activation;
  bool named = false;
  bool more = true;
  for (size_t begin = 0; more;) {
    const size_t open = text.find('(', begin);  // numbers have commas between them, too
    const size_t end =
        std::min(text.find(", ", open < text.find(", ", begin) ? text.find(')', open) : begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const NamedFunctor found = NamedFunctor::parse("activation", "leaky_relu(0.2)", part);
    const bool alone = found.parameters.size() == 1;
    if (found.name == "dropout") {
      TORCH_CHECK_VALUE(named && alone && found.parameters[0] >= 0 && found.parameters[0] <= 1,
                        "dropout must be a probability, behind an activation (got '", text, "')");
      activation.dropout = found.parameters[0];
    } else if (found.name == "layer_norm") {
      TORCH_CHECK_VALUE(alone && activation.normalization.none() && activation.dropout == 0,
                        "layer_norm must be there once, with its eps, before or behind an activation (got '",
                        text, "')");
      using Place = Normalization::Place;
      activation.normalization = {named ? Place::kBehind : Place::kBefore, found.parameters[0]};
    } else {
      TORCH_CHECK_VALUE(!named, "there must be one activation (got '", text, "')");
      activation.name = found.name;
      activation.parameters = found.parameters;
      named = true;
    }
    more = end < text.size();
    begin = end + 2;
  }
  return activation;
}

std::string Activation::text() const {
  std::string own = NamedFunctor{name, parameters}.text();
  const std::string norm = NamedFunctor{"layer_norm", {normalization.eps}}.text();
  if (normalization.place == Normalization::Place::kBefore) {
    own = norm + ", " + own;
  } else if (!normalization.none()) {
    own += ", " + norm;
  }
  return dropout == 0 ? own : own + ", " + NamedFunctor{"dropout", {dropout}}.text();
}

namespace {

struct FoundModel {
  std::vector<FoundModule> modules;
  std::vector<std::shared_ptr<torch::nn::Module>> are;  // the modules themselves
};

// Appends what a Sequential holds, with the modules of Residuals in their place.
void find_modules(const torch::nn::Sequential& model, const std::string& prefix, FoundModel& all) {
  using Kind = FoundModule::Kind;
  int position = 0;
  for (const std::shared_ptr<torch::nn::Module>& module : model->children()) {
    FoundModule found{Kind::kUnknown, prefix + std::to_string(position++), module->name(), {}, {}, {}};
    if (const auto* residual = exactly<nn::ResidualImpl>(*module);
        residual && !residual->branch()->is_empty()) {
      const size_t begin = all.modules.size();
      find_modules(residual->branch(), found.position + ".", all);
      ++all.modules[begin].begins;
      ++all.modules.back().ends;
      continue;
    }
    if (const auto* flatten = exactly<torch::nn::FlattenImpl>(*module)) {
      const bool whole = flatten->options.start_dim() == 1 && flatten->options.end_dim() == -1;
      found.kind = whole ? Kind::kFlatten : Kind::kPartialFlatten;
    } else if (const auto* linear = exactly<torch::nn::LinearImpl>(*module)) {
      found.kind = Kind::kLinear;
      found.weight = linear->weight;
      found.bias = linear->bias;
    } else if (const auto* norm = exactly<torch::nn::LayerNormImpl>(*module)) {
      found.kind = Kind::kLayerNorm;
      found.weight = norm->weight;
      found.bias = norm->bias;
      found.eps = norm->options.eps();
      found.shape = norm->options.normalized_shape();
    } else if (const auto* dropout = exactly<torch::nn::DropoutImpl>(*module)) {
      found.kind = Kind::kDropout;
      found.activation.dropout = dropout->is_training() ? dropout->options.p() : 0;
    } else if (std::optional<Activation> activation = activation_of(*module)) {
      found.kind = Kind::kActivation;
      found.activation = std::move(*activation);
      if (const auto* prelu = exactly<torch::nn::PReLUImpl>(*module);
          prelu && found.activation.name == "prelu") {
        found.weight = prelu->weight;
      }
    }
    const std::vector<at::Tensor> parameters = module->parameters();
    found.trainable = std::any_of(parameters.begin(), parameters.end(),
                                  [](const at::Tensor& p) { return p.requires_grad(); });
    all.modules.push_back(std::move(found));
    all.are.push_back(module);
  }
}

FoundModel find_modules(const torch::nn::Sequential& model) {
  FoundModel all;
  find_modules(model, "", all);
  return all;
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

Mlp mlp_of_model(const torch::nn::Sequential& model, const std::vector<FoundModule>& found, size_t count) {
  Mlp mlp = mlp_of(found, count, kSupported);
  if (count > 0) {
    // A Residual is one module of the model, and no boundary goes through one.
    const auto whole = std::count_if(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count),
                                     [within = 0](const FoundModule& m) mutable {
                                       const bool outside = within == 0;
                                       within += m.begins - m.ends;
                                       return outside;
                                     });
    std::vector<torch::nn::AnyModule> modules(model->begin(), model->begin() + whole);
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

Mlp read_mlp(const torch::nn::Sequential& model) {
  const std::vector<FoundModule> found = find_modules(model).modules;
  return mlp_of_model(model, found, modules_before_layers(found));
}

std::function<Mlp()> reader_of(const torch::nn::Sequential& model) {
  FoundModel found = find_modules(model);
  const size_t before = modules_before_layers(found.modules);  // whatever is frozen later
  return [model, then = std::move(found), before] {
    FoundModel now = find_modules(model);
    for (size_t i = 0; i < std::min(then.are.size(), now.are.size()); ++i) {
      const FoundModule& was = then.modules[i];
      FoundModule& is = now.modules[i];
      const auto* prelu = exactly<torch::nn::PReLUImpl>(*now.are[i]);
      if (prelu != nullptr && was.activation.name == "prelu") {  // frozen by now, perhaps
        is.activation = was.activation;
        is.weight = prelu->weight;
      }
      const bool dropout = is.kind == FoundModule::Kind::kDropout;  // which follows mode and probability
      TORCH_CHECK_VALUE(
          then.are[i] == now.are[i] && (dropout || was.activation.text() == is.activation.text()) &&
              was.weight.defined() == is.weight.defined() && was.bias.defined() == is.bias.defined() &&
              was.eps == is.eps && was.shape == is.shape && was.begins == is.begins && was.ends == is.ends,
          "module ", is.position, " of the model, ", is.text,
          ", is another one now or has been changed; make a new optimizer");
    }
    TORCH_CHECK_VALUE(then.are.size() == now.are.size(), "the model has ", now.are.size(),
                      " modules and had ", then.are.size(), " when the optimizer was made; make a new one");
    return mlp_of_model(model, now.modules, before);
  };
}

namespace nn {

ResidualImpl::ResidualImpl(torch::nn::Sequential branch) : branch_(std::move(branch)) {
  register_module("branch", branch_);
}

at::Tensor ResidualImpl::forward(const at::Tensor& x) { return x + branch_->forward(x); }

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
