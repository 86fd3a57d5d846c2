#include "engine/mlp_trainer.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/checks.h"

namespace torchbcd {

namespace {

// The weights and biases of all maps that there are.
std::vector<at::Tensor> tensors_of(const std::vector<AffineMap>& maps) {
  std::vector<at::Tensor> tensors;
  for (const AffineMap& map : maps) {
    tensors.push_back(map.weight);
    if (map.bias.defined()) {
      tensors.push_back(map.bias);
    }
  }
  return tensors;
}

// Numbers that lie on a device one by one, fetched at once: a GPU is waited for a single time.
std::vector<double> fetch(const std::vector<at::Tensor>& scalars) {
  return scalars.empty() ? std::vector<double>() : to_doubles(at::stack(scalars));
}

bool equal_maps(const std::vector<AffineMap>& a, const std::vector<AffineMap>& b) {
  const std::vector<at::Tensor> left = tensors_of(a);
  const std::vector<at::Tensor> right = tensors_of(b);
  if (left.front().is_cpu()) {
    return std::equal(left.begin(), left.end(), right.begin(),
                      [](const at::Tensor& x, const at::Tensor& y) { return at::equal(x, y); });
  }
  std::vector<at::Tensor> differ;
  for (size_t i = 0; i < left.size(); ++i) {
    differ.push_back(at::ne(left[i], right[i]).any());
  }
  const std::vector<double> found = fetch(differ);
  return std::all_of(found.begin(), found.end(), [](double d) { return d == 0; });
}

}  // namespace

bool all_finite(const at::Tensor& t) { return all_finite(std::vector<at::Tensor>{t}); }

// A finite sum means finite entries; only an infinite one, which finite entries can have too, costs a second
// look.
bool all_finite(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> sums;
  for (const at::Tensor& t : tensors) {
    if (t.defined() && t.numel() > 0) {
      sums.push_back(at::sum(t));
    }
  }
  const std::vector<double> fetched = fetch(sums);
  return std::all_of(fetched.begin(), fetched.end(), [](double s) { return std::isfinite(s); }) ||
         std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) {
           return !t.defined() || t.numel() == 0 || at::isfinite(t).all().item<bool>();
         });
}

bool all_finite(const std::vector<AffineMap>& maps) { return all_finite(tensors_of(maps)); }

std::vector<AffineMap> allocate_like(const std::vector<AffineMap>& maps) {
  std::vector<AffineMap> result;
  result.reserve(maps.size());
  for (const AffineMap& map : maps) {
    result.push_back(
        {at::empty_like(map.weight), map.bias.defined() ? at::empty_like(map.bias) : at::Tensor()});
  }
  return result;
}

void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to) {
  for (size_t l = 0; l < from.size(); ++l) {
    to[l].weight.copy_(from[l].weight);
    if (from[l].bias.defined()) {
      to[l].bias.copy_(from[l].bias);
    }
  }
}

std::vector<at::Tensor> clone_all(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& t : tensors) {
    copies.push_back(t.defined() ? t.clone() : t);
  }
  return copies;
}

void save_maps(const std::vector<AffineMap>& maps, const char* weight, const char* bias,
               TrainerState& state) {
  for (const AffineMap& map : maps) {
    state[weight].push_back(map.weight.clone());
    state[bias].push_back(map.bias.defined() ? map.bias.clone() : map.bias);
  }
}

void check_regularizer(const char* name, const char* what, size_t layer,
                       const functors::Regularizer& regularizer) {
  TORCH_CHECK_VALUE(std::isfinite(regularizer.l1) && regularizer.l1 >= 0 && std::isfinite(regularizer.l2) &&
                        regularizer.l2 >= 0,
                    name, ": ", what, " of layer ", layer + 1,
                    " must have finite weights >= 0 (got l1 = ", regularizer.l1, ", l2 = ", regularizer.l2,
                    ")");
  TORCH_CHECK_VALUE(regularizer.low <= regularizer.high, name, ": ", what, " of layer ", layer + 1,
                    " must have low <= high (got ", regularizer.low, " and ", regularizer.high, ")");
}

const std::vector<at::Tensor>& state_entry(const char* name, const TrainerState& state, const char* key,
                                           size_t count) {
  const auto found = state.find(key);
  TORCH_CHECK_VALUE(found != state.end() && found->second.size() == count, name, ": the state must hold ",
                    count, " tensors named '", key, "' (got ",
                    found == state.end() ? 0 : found->second.size(), ")");
  return found->second;
}

void load_entry(const char* name, const TrainerState& state, const char* key,
                const std::vector<at::Tensor>& targets) {
  const std::vector<at::Tensor>& sources = state_entry(name, state, key, targets.size());
  for (size_t l = 0; l < targets.size(); ++l) {
    const at::Tensor& source = sources[l];
    at::Tensor target = targets[l];
    TORCH_CHECK_VALUE(
        source.defined() == target.defined() && (!target.defined() || source.sizes() == target.sizes()), name,
        ": state['", key, "'] of layer ", l + 1, " does not fit this model and its data");
    if (target.defined()) {
      target.copy_(source);
    }
  }
}

void load_maps(const char* name, const TrainerState& state, const char* weight, const char* bias,
               const std::vector<AffineMap>& maps) {
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
  for (const AffineMap& map : maps) {
    weights.push_back(map.weight);
    biases.push_back(map.bias);
  }
  load_entry(name, state, weight, weights);
  load_entry(name, state, bias, biases);
}

MlpTrainer::MlpTrainer(const char* name, const std::vector<at::Tensor>& weights,
                       const std::vector<at::Tensor>& biases,
                       const std::vector<functors::Activation>& activations, const functors::Loss& loss)
    : name_(name), loss_(loss) {
  TORCH_CHECK_VALUE(!weights.empty(), name_, ": the model must have at least one Linear layer");
  TORCH_CHECK_VALUE(weights.size() == biases.size() && weights.size() == activations.size(), name_,
                    ": weights, biases and activations must be as many (got ", weights.size(), ", ",
                    biases.size(), " and ", activations.size(), ")");
  const at::Tensor& first = weights.front();
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, name_,
                   ": parameters must be float32 or float64 (got ", first.scalar_type(), ")");
  for (size_t l = 0; l < weights.size(); ++l) {
    for (const at::Tensor& t : {weights[l], biases[l]}) {
      TORCH_CHECK_VALUE(!t.defined() || t.options().type_equal(first.options()), name_,
                        ": parameters must share one dtype and device (got ", t.scalar_type(), " on ",
                        t.device(), " in layer ", l + 1, ", ", first.scalar_type(), " on ", first.device(),
                        " in layer 1)");
    }
    TORCH_CHECK_VALUE(l == 0 || weights[l].size(1) == weights[l - 1].size(0), name_, ": layer ", l + 1,
                      " must take as many inputs as layer ", l, " has outputs, ", weights[l - 1].size(0),
                      " (got ", weights[l].size(1), ")");
    parameters_.push_back({weights[l].detach(), biases[l].defined() ? biases[l].detach() : biases[l]});
  }
  committed_ = allocate_like(parameters_);
  next_ = allocate_like(parameters_);
  copy_maps(parameters_, committed_);
}

at::Tensor MlpTrainer::checked_inputs(const char* argument, const at::Tensor& x) const {
  const at::Tensor& weight = parameters_.front().weight;
  TORCH_CHECK_TYPE(x.scalar_type() == weight.scalar_type(), name_, ": ", argument,
                   " must have the dtype of the model, ", weight.scalar_type(), " (got ", x.scalar_type(),
                   ")");
  TORCH_CHECK_VALUE(x.device() == weight.device(), name_, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", x.device(), ")");
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(1) == weight.size(1), name_, ": ", argument,
                    " must have shape (n, ", weight.size(1), ") (got ", x.sizes(), ")");
  TORCH_CHECK_VALUE(x.size(0) > 0, name_, ": ", argument, " must have at least one row (got ", x.sizes(),
                    ")");
  TORCH_CHECK_VALUE(all_finite(x), name_, ": ", argument, " must be finite (got NaN or infinite entries)");
  return x.detach().contiguous();
}

at::Tensor MlpTrainer::checked_targets(const char* argument, const at::Tensor& y, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  const int64_t outputs = weight.size(0);
  TORCH_CHECK_VALUE(y.device() == weight.device(), name_, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", y.device(), ")");
  TORCH_CHECK_VALUE(y.dim() >= 1 && y.size(0) == rows, name_, ": ", argument,
                    " must have as many rows as x, ", rows, " (got ", y.sizes(), ")");
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/false)) {
    return encoded_classes(argument, y, rows);
  }
  TORCH_CHECK_TYPE(y.scalar_type() == weight.scalar_type(), name_, ": ", argument,
                   " must hold class indices or have the dtype of the model, ", weight.scalar_type(),
                   " (got ", y.scalar_type(), ")");
  TORCH_CHECK_VALUE(y.dim() == 2 && y.size(1) == outputs, name_, ": ", argument, " must have shape (n, ",
                    outputs, ") (got ", y.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(y), name_, ": ", argument, " must be finite (got NaN or infinite entries)");
  const bool weights = std::holds_alternative<functors::CrossEntropyLoss>(loss_);
  TORCH_CHECK_VALUE(!weights || y.min().item<double>() >= 0, name_, ": ", argument,
                    " must hold probabilities >= 0 for the cross-entropy (got ", y.min().item<double>(), ")");
  return y.detach().contiguous();
}

// One-hot rows for the squared loss and the cross-entropy; one against the rest, +1 and -1, for the losses of
// a margin, where a single output stands for two classes.
at::Tensor MlpTrainer::encoded_classes(const char* argument, const at::Tensor& y, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  const bool margin = !std::holds_alternative<functors::SquaredLoss>(loss_) &&
                      !std::holds_alternative<functors::CrossEntropyLoss>(loss_);
  const bool binary = margin && weight.size(0) == 1;
  const at::Tensor like = weight.select(0, 0).select(0, 0).expand({rows, binary ? 2 : weight.size(0)});
  const at::Tensor encoded = checks::one_hot(name_, argument, y, like, margin ? -1 : 0, 1);
  return binary ? encoded.narrow(1, 1, 1).contiguous() : encoded;
}

at::Tensor MlpTrainer::checked_row_weight(const at::Tensor& sample_weight, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  if (!sample_weight.defined()) {
    return at::ones({1, 1}, weight.options());
  }
  TORCH_CHECK_TYPE(sample_weight.scalar_type() == weight.scalar_type(), name_,
                   ": sample_weight must have the dtype of the model, ", weight.scalar_type(), " (got ",
                   sample_weight.scalar_type(), ")");
  TORCH_CHECK_VALUE(sample_weight.device() == weight.device(), name_,
                    ": sample_weight must be on the device of the model, ", weight.device(), " (got ",
                    sample_weight.device(), ")");
  TORCH_CHECK_VALUE(sample_weight.dim() == 1 && sample_weight.size(0) == rows, name_,
                    ": sample_weight must have shape (n,) = [", rows, "] (got ", sample_weight.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(sample_weight) && sample_weight.min().item<double>() >= 0, name_,
                    ": sample_weight must be finite and >= 0");
  return sample_weight.detach().unsqueeze(1).contiguous();
}

at::Tensor MlpTrainer::loaded_row_weight(const TrainerState& state, int64_t rows) const {
  const at::Tensor& row_weight = state_entry(name_, state, "row_weight", 1)[0];
  return row_weight.size(0) == 1 && rows != 1 ? checked_row_weight({}, 1)
                                              : checked_row_weight(row_weight.squeeze(1), rows);
}

void MlpTrainer::set_loss_weight(double weight, bool mean) {
  check_positive("loss_weight", weight);
  loss_weight_ = {weight, mean};
}

bool MlpTrainer::note_outside_changes() {
  if (!all_finite(parameters_)) {
    for (size_t l = 0; l < parameters_.size(); ++l) {
      TORCH_CHECK_VALUE(all_finite({parameters_[l].weight, parameters_[l].bias}), name_,
                        ": the parameters of layer ", l + 1, " must be finite (got NaN or infinite entries)");
    }
  }
  if (equal_maps(parameters_, committed_)) {
    return false;
  }
  copy_maps(parameters_, committed_);
  return true;
}

void MlpTrainer::check_next_weights() const {
  if (!all_finite(next_)) {
    for (size_t l = 0; l < depth(); ++l) {
      TORCH_CHECK_LINALG(all_finite({next_[l].weight, next_[l].bias}), block_name(name_, depth(), "W", l),
                         ": the update is not finite");
    }
  }
}

void MlpTrainer::commit() {
  copy_maps(next_, parameters_);
  std::swap(committed_, next_);
  ++sweeps_;
  ++revision_;
}

void MlpTrainer::check_layer(size_t layer) const {
  TORCH_CHECK_INDEX(layer < depth(), name_, ": layer must be below ", depth(), " (got ", layer, ")");
}

void MlpTrainer::check_positive(const char* argument, double value) const {
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, name_, ": ", argument,
                    " must be a finite positive number (got ", value, ")");
}

void MlpTrainer::check_positive(const char* argument, size_t layer, double value) const {
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, name_, ": ", argument, " of layer ", layer + 1,
                    " must be a finite positive number (got ", value, ")");
}

}  // namespace torchbcd
