#include "torchbcd/mlp.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/hardsigmoid.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <system_error>
#include <typeinfo>
#include <utility>

#include "kernels/registry.h"
#include "optimizers/found_modules.h"

namespace torchbcd {
namespace {

constexpr const char* kSupported =
    "Flatten (first), Linear, Identity, ReLU, LeakyReLU, Sigmoid, Tanh, Hardtanh, ReLU6, SiLU, and of "
    "torchbcd::nn "
    "Hardsigmoid, Sign and Polynomial";

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

Mlp mlp_of(const std::vector<FoundModule>& modules, const std::string& supported) {
  using Kind = FoundModule::Kind;
  Mlp mlp;
  mlp.can_be_frozen = true;
  bool activated = true;  // whether the last Linear has its activation
  for (const FoundModule& found : modules) {
    const auto check = [&](bool holds, const std::string& reason) {
      TORCH_CHECK_VALUE(holds, "module ", found.position, " of the model, ", found.text, ", ", reason);
    };
    check(found.kind != Kind::kUnknown, "is not supported; supported are " + supported);
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
      check(&found == &modules.front(), "must be the first module");
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
    modules.push_back(std::move(found));
  }
  return modules;
}

}  // namespace

Mlp read_mlp(const torch::nn::Sequential& model) { return mlp_of(find_modules(model), kSupported); }

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
    return mlp_of(now, kSupported);
  };
}

namespace nn {

at::Tensor HardsigmoidImpl::forward(const at::Tensor& u) { return at::hardsigmoid(u); }

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
