#include "optimizers/trained_mlp.h"

#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>

#include <utility>

#include "kernels/registry.h"
#include "linalg/reductions.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

std::vector<AffineMap> checked_parameters(const char* name, const Mlp& mlp) {
  const std::vector<at::Tensor>& weights = mlp.weights;
  const std::vector<at::Tensor>& biases = mlp.biases;
  TORCH_CHECK_VALUE(!weights.empty(), name, ": the model must have at least one Linear layer");
  TORCH_CHECK_VALUE(weights.size() == biases.size() && weights.size() == mlp.activations.size(), name,
                    ": weights, biases and activations must be as many (got ", weights.size(), ", ",
                    biases.size(), " and ", mlp.activations.size(), ")");
  const at::Tensor& first = weights.front();
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, name,
                   ": parameters must be float32 or float64 (got ", first.scalar_type(), ")");
  std::vector<AffineMap> parameters;
  for (size_t l = 0; l < weights.size(); ++l) {
    for (const at::Tensor& t : {weights[l], biases[l]}) {
      TORCH_CHECK_VALUE(!t.defined() || t.options().type_equal(first.options()), name,
                        ": parameters must share one dtype and device (got ", t.scalar_type(), " on ",
                        t.device(), " in layer ", l + 1, ", ", first.scalar_type(), " on ", first.device(),
                        " in layer 1)");
    }
    TORCH_CHECK_VALUE(weights[l].dim() == 2 && (!biases[l].defined() || biases[l].dim() == 1), name,
                      ": layer ", l + 1, " must have a matrix as weight and a vector as bias");
    TORCH_CHECK_VALUE(l == 0 || weights[l].size(1) == weights[l - 1].size(0), name, ": layer ", l + 1,
                      " must take as many inputs as layer ", l, " has outputs, ", weights[l - 1].size(0),
                      " (got ", weights[l].size(1), ")");
    parameters.push_back({weights[l], biases[l]});
  }
  return parameters;
}

// Whether a parameter is still what the optimizer was made for.
void check_kind(const char* name, const char* which, size_t layer, const at::Tensor& now,
                const at::Tensor& then) {
  TORCH_CHECK_VALUE(now.options().type_equal(then.options()) && now.sizes() == then.sizes(), name, ": the ",
                    which, " of layer ", layer + 1, " was ", then.scalar_type(), " on ", then.device(),
                    " of shape ", then.sizes(), " when the optimizer was made (now ", now.scalar_type(),
                    " on ", now.device(), " of shape ", now.sizes(), "); make a new one");
}

}  // namespace

TrainedMlp::TrainedMlp(const char* name, Mlp mlp, const std::string& loss)
    : name(name),
      mlp(std::move(mlp)),
      loss_name(loss),
      loss(loss_from(loss)),
      parameters(checked_parameters(name, this->mlp)) {
  for (const Activation& activation : this->mlp.activations) {
    activations.push_back(activation_from(activation.name, activation.parameters));
  }
  committed = clone_maps(parameters);
  next = allocate_like(parameters);
}

bool TrainedMlp::sync() {
  for (size_t l = 0; l < depth(); ++l) {
    check_kind(name, "weight", l, parameters[l].weight, committed[l].weight);
    if (committed[l].bias.defined()) {
      check_kind(name, "bias", l, parameters[l].bias, committed[l].bias);
    }
  }
  const std::vector<at::Tensor> now = tensors_of(parameters);
  if (all_equal(now, tensors_of(committed))) {
    return false;  // committed ones are finite
  }
  if (!all_finite(now)) {
    for (size_t l = 0; l < depth(); ++l) {
      TORCH_CHECK_VALUE(all_finite({parameters[l].weight, parameters[l].bias}), name,
                        ": the parameters of layer ", l + 1, " must be finite (got NaN or infinite entries)");
    }
  }
  copy_maps(parameters, committed);
  return true;
}

void TrainedMlp::check_next() const {
  if (!all_finite(tensors_of(next))) {
    for (size_t l = 0; l < depth(); ++l) {
      TORCH_CHECK_LINALG(all_finite({next[l].weight, next[l].bias}), block_name(name, depth(), "W", l),
                         ": the update is not finite");
    }
  }
}

void TrainedMlp::commit() {
  copy_maps(next, parameters);
  std::swap(committed, next);
}

at::Tensor TrainedMlp::inputs(const char* argument, const at::Tensor& given) const {
  TORCH_CHECK_TYPE(given.defined(), name, ": ", argument, " must be a tensor (got none)");
  const at::Tensor x = mlp.flatten && given.dim() > 1 ? given.flatten(1) : given;
  const at::Tensor& weight = parameters.front().weight;
  TORCH_CHECK_TYPE(x.scalar_type() == weight.scalar_type(), name, ": ", argument,
                   " must have the dtype of the model, ", weight.scalar_type(), " (got ", x.scalar_type(),
                   ")");
  TORCH_CHECK_VALUE(x.device() == weight.device(), name, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", x.device(), ")");
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(1) == weight.size(1), name, ": ", argument,
                    " must have shape (n, ", weight.size(1), ") (got ", x.sizes(), ")");
  TORCH_CHECK_VALUE(x.size(0) > 0, name, ": ", argument, " must have at least one row (got ", x.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(x), name, ": ", argument, " must be finite (got NaN or infinite entries)");
  return x.detach().contiguous();
}

at::Tensor TrainedMlp::targets(const char* argument, const at::Tensor& y, int64_t rows) const {
  const at::Tensor& weight = parameters.back().weight;
  const int64_t outputs = weight.size(0);
  TORCH_CHECK_VALUE(y.device() == weight.device(), name, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", y.device(), ")");
  TORCH_CHECK_VALUE(y.dim() >= 1 && y.size(0) == rows, name, ": ", argument, " must have as many rows as x, ",
                    rows, " (got ", y.sizes(), ")");
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/false)) {
    const at::Tensor like = weight.select(0, 0).select(0, 0).expand({rows, outputs});
    return encode_classes(name, argument, y, like, loss);
  }
  TORCH_CHECK_TYPE(y.scalar_type() == weight.scalar_type(), name, ": ", argument,
                   " must hold class indices or have the dtype of the model, ", weight.scalar_type(),
                   " (got ", y.scalar_type(), ")");
  TORCH_CHECK_VALUE(y.dim() == 2 && y.size(1) == outputs, name, ": ", argument, " must have shape (n, ",
                    outputs, ") (got ", y.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(y), name, ": ", argument, " must be finite (got NaN or infinite entries)");
  check_probabilities(name, argument, y, loss);
  return y.detach().contiguous();
}

at::Tensor TrainedMlp::row_weight(const at::Tensor& sample_weight, int64_t rows) const {
  const at::Tensor& weight = parameters.back().weight;
  if (!sample_weight.defined()) {
    return at::ones({1, 1}, weight.options());
  }
  TORCH_CHECK_TYPE(sample_weight.scalar_type() == weight.scalar_type(), name,
                   ": sample_weight must have the dtype of the model, ", weight.scalar_type(), " (got ",
                   sample_weight.scalar_type(), ")");
  TORCH_CHECK_VALUE(sample_weight.device() == weight.device(), name,
                    ": sample_weight must be on the device of the model, ", weight.device(), " (got ",
                    sample_weight.device(), ")");
  TORCH_CHECK_VALUE(sample_weight.dim() == 1 && sample_weight.size(0) == rows, name,
                    ": sample_weight must have shape (n,) = [", rows, "] (got ", sample_weight.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(sample_weight) && sample_weight.min().item<double>() >= 0, name,
                    ": sample_weight must be finite and >= 0");
  return sample_weight.detach().unsqueeze(1).contiguous();
}

}  // namespace torchbcd
