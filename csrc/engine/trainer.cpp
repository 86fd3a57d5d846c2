#include "engine/trainer.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <string>
#include <tuple>
#include <utility>

#include "ops/checks.h"

namespace torchbcd {
namespace {

constexpr const char* kName = "torchbcd.BCD";

// A finite sum means finite entries; only an infinite one, which finite entries can have too, costs
// a second look.
bool all_finite(const at::Tensor& t) {
  return t.numel() == 0 || std::isfinite(at::sum(t).item<double>()) || at::isfinite(t).all().item<bool>();
}

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

bool equal_maps(const std::vector<AffineMap>& a, const std::vector<AffineMap>& b) {
  for (size_t l = 0; l < a.size(); ++l) {
    if (!at::equal(a[l].weight, b[l].weight) || (a[l].bias.defined() && !at::equal(a[l].bias, b[l].bias))) {
      return false;
    }
  }
  return true;
}

std::vector<at::Tensor> clone_all(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& t : tensors) {
    copies.push_back(t.defined() ? t.clone() : t);
  }
  return copies;
}

}  // namespace

Trainer::Trainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                 const std::vector<functors::Activation>& activations, const functors::Loss& loss) {
  TORCH_CHECK_VALUE(!weights.empty(), kName, ": the model must have at least one Linear layer");
  TORCH_CHECK_VALUE(weights.size() == biases.size() && weights.size() == activations.size(), kName,
                    ": weights, biases and activations must be as many (got ", weights.size(), ", ",
                    biases.size(), " and ", activations.size(), ")");
  const at::Tensor& first = weights.front();
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, kName,
                   ": parameters must be float32 or float64 (got ", first.scalar_type(), ")");
  for (size_t l = 0; l < weights.size(); ++l) {
    for (const at::Tensor& t : {weights[l], biases[l]}) {
      TORCH_CHECK_VALUE(!t.defined() || t.options().type_equal(first.options()), kName,
                        ": parameters must share one dtype and device (got ", t.scalar_type(), " on ",
                        t.device(), " in layer ", l + 1, ", ", first.scalar_type(), " on ", first.device(),
                        " in layer 1)");
    }
    TORCH_CHECK_VALUE(l == 0 || weights[l].size(1) == weights[l - 1].size(0), kName, ": layer ", l + 1,
                      " must take as many inputs as layer ", l, " has outputs, ", weights[l - 1].size(0),
                      " (got ", weights[l].size(1), ")");
    parameters_.push_back({weights[l].detach(), biases[l].defined() ? biases[l].detach() : biases[l]});
    network_.layers.push_back({activations[l], {}});
  }
  network_.loss = loss;
  committed_ = allocate_like(parameters_);
  next_ = allocate_like(parameters_);
  copy_maps(parameters_, committed_);
}

void Trainer::set_layer_options(size_t layer, const LayerOptions& options) {
  TORCH_CHECK_INDEX(layer < network_.depth(), kName, ": layer must be below ", network_.depth(), " (got ",
                    layer, ")");
  for (const auto& [name, value] :
       {std::pair{"gamma", options.gamma}, std::pair{"rho", options.rho}, std::pair{"alpha", options.alpha},
        std::pair{"alpha_weight", options.alpha_weight}}) {
    TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, kName, ": ", name, " of layer ", layer + 1,
                      " must be a finite positive number (got ", value, ")");
  }
  for (const auto& [name, regularizer] : {std::pair{"weight_regularizer", options.weight_regularizer},
                                          std::pair{"state_regularizer", options.state_regularizer}}) {
    TORCH_CHECK_VALUE(std::isfinite(regularizer.l1) && regularizer.l1 >= 0 && std::isfinite(regularizer.l2) &&
                          regularizer.l2 >= 0,
                      kName, ": ", name, " of layer ", layer + 1,
                      " must have finite weights >= 0 (got l1 = ", regularizer.l1, ", l2 = ", regularizer.l2,
                      ")");
    TORCH_CHECK_VALUE(regularizer.low <= regularizer.high, kName, ": ", name, " of layer ", layer + 1,
                      " must have low <= high (got ", regularizer.low, " and ", regularizer.high, ")");
  }
  network_.layers[layer].options = options;
}

void Trainer::set_order(UpdateOrder order, int64_t inner_sweeps) {
  TORCH_CHECK_VALUE(inner_sweeps >= 1, kName, ": inner_sweeps must be at least 1 (got ", inner_sweeps, ")");
  network_.order = order;
  network_.inner_sweeps = inner_sweeps;
}

void Trainer::set_loss_weight(double weight, bool mean) {
  TORCH_CHECK_VALUE(std::isfinite(weight) && weight > 0, kName,
                    ": loss_weight must be a finite positive number (got ", weight, ")");
  network_.loss_weight = weight;
  network_.mean_loss = mean;
}

at::Tensor Trainer::checked_inputs(const char* argument, const at::Tensor& x) const {
  const at::Tensor& weight = parameters_.front().weight;
  TORCH_CHECK_TYPE(x.scalar_type() == weight.scalar_type(), kName, ": ", argument,
                   " must have the dtype of the model, ", weight.scalar_type(), " (got ", x.scalar_type(),
                   ")");
  TORCH_CHECK_VALUE(x.device() == weight.device(), kName, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", x.device(), ")");
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(1) == weight.size(1), kName, ": ", argument,
                    " must have shape (n, ", weight.size(1), ") (got ", x.sizes(), ")");
  TORCH_CHECK_VALUE(x.size(0) > 0, kName, ": ", argument, " must have at least one row (got ", x.sizes(),
                    ")");
  TORCH_CHECK_VALUE(all_finite(x), kName, ": ", argument, " must be finite (got NaN or infinite entries)");
  return x.detach().contiguous();
}

at::Tensor Trainer::checked_targets(const char* argument, const at::Tensor& y, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  const int64_t outputs = weight.size(0);
  TORCH_CHECK_VALUE(y.device() == weight.device(), kName, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", y.device(), ")");
  TORCH_CHECK_VALUE(y.dim() >= 1 && y.size(0) == rows, kName, ": ", argument,
                    " must have as many rows as x, ", rows, " (got ", y.sizes(), ")");
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/false)) {
    return encoded_classes(argument, y, rows);
  }
  TORCH_CHECK_TYPE(y.scalar_type() == weight.scalar_type(), kName, ": ", argument,
                   " must hold class indices or have the dtype of the model, ", weight.scalar_type(),
                   " (got ", y.scalar_type(), ")");
  TORCH_CHECK_VALUE(y.dim() == 2 && y.size(1) == outputs, kName, ": ", argument, " must have shape (n, ",
                    outputs, ") (got ", y.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(y), kName, ": ", argument, " must be finite (got NaN or infinite entries)");
  const bool weights = std::holds_alternative<functors::CrossEntropyLoss>(network_.loss);
  TORCH_CHECK_VALUE(!weights || y.min().item<double>() >= 0, kName, ": ", argument,
                    " must hold probabilities >= 0 for the cross-entropy (got ", y.min().item<double>(), ")");
  return y.detach().contiguous();
}

// One-hot rows for the squared loss and the cross-entropy; one against the rest, +1 and -1, for the losses of
// a margin, where a single output stands for two classes.
at::Tensor Trainer::encoded_classes(const char* argument, const at::Tensor& y, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  const bool margin = !std::holds_alternative<functors::SquaredLoss>(network_.loss) &&
                      !std::holds_alternative<functors::CrossEntropyLoss>(network_.loss);
  const bool binary = margin && weight.size(0) == 1;
  const at::Tensor like = weight.select(0, 0).select(0, 0).expand({rows, binary ? 2 : weight.size(0)});
  const at::Tensor encoded = checks::one_hot(kName, argument, y, like, margin ? -1 : 0, 1);
  return binary ? encoded.narrow(1, 1, 1).contiguous() : encoded;
}

at::Tensor Trainer::checked_row_weight(const at::Tensor& sample_weight, int64_t rows) const {
  const at::Tensor& weight = parameters_.back().weight;
  if (!sample_weight.defined()) {
    return at::ones({1, 1}, weight.options());
  }
  TORCH_CHECK_TYPE(sample_weight.scalar_type() == weight.scalar_type(), kName,
                   ": sample_weight must have the dtype of the model, ", weight.scalar_type(), " (got ",
                   sample_weight.scalar_type(), ")");
  TORCH_CHECK_VALUE(sample_weight.device() == weight.device(), kName,
                    ": sample_weight must be on the device of the model, ", weight.device(), " (got ",
                    sample_weight.device(), ")");
  TORCH_CHECK_VALUE(sample_weight.dim() == 1 && sample_weight.size(0) == rows, kName,
                    ": sample_weight must have shape (n,) = [", rows, "] (got ", sample_weight.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(sample_weight) && sample_weight.min().item<double>() >= 0, kName,
                    ": sample_weight must be finite and >= 0");
  return sample_weight.detach().unsqueeze(1).contiguous();
}

at::Tensor Trainer::checked_index(const at::Tensor& index) const {
  TORCH_CHECK_VALUE(bound_.defined(), kName, ": step(index=...) needs bound data; call bind(x, y) first");
  TORCH_CHECK_TYPE(index.scalar_type() == at::kLong || index.scalar_type() == at::kInt, kName,
                   ": index must be an int64 tensor (got ", index.scalar_type(), ")");
  TORCH_CHECK_VALUE(index.dim() == 1 && index.size(0) > 0, kName,
                    ": index must have shape (m,) with m > 0 (got ", index.sizes(), ")");
  const at::Tensor sorted = std::get<0>(index.to(bound_.x.device(), at::kLong).sort());
  const int64_t least = sorted[0].item<int64_t>();
  const int64_t greatest = sorted[-1].item<int64_t>();
  TORCH_CHECK_VALUE(least >= 0 && greatest < bound_.rows(), kName, ": index must hold rows from 0 to ",
                    bound_.rows() - 1, " (got ", least < 0 ? least : greatest, ")");
  const int64_t m = sorted.size(0);
  TORCH_CHECK_VALUE(
      m == 1 || at::ne(sorted.narrow(0, 1, m - 1), sorted.narrow(0, 0, m - 1)).all().item<bool>(), kName,
      ": index must not hold a row twice");
  return index.to(bound_.x.device(), at::kLong);
}

// The residuals of bound rows are those of `committed_`. A model whose parameters somebody else has
// changed since (load_state_dict, an in-place edit) has other ones.
void Trainer::note_outside_changes() {
  for (size_t l = 0; l < parameters_.size(); ++l) {
    TORCH_CHECK_VALUE(all_finite(parameters_[l].weight) &&
                          (!parameters_[l].bias.defined() || all_finite(parameters_[l].bias)),
                      kName, ": the parameters of layer ", l + 1,
                      " must be finite (got NaN or infinite entries)");
  }
  if (!equal_maps(parameters_, committed_)) {
    copy_maps(parameters_, committed_);
    bound_.residuals = Residuals::kStale;
    batch_.residuals = Residuals::kStale;
  }
}

void Trainer::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  RowSet rows;
  rows.x = checked_inputs("x", x);
  rows.y = checked_targets("y", y, rows.x.size(0));
  rows.row_weight = checked_row_weight(sample_weight, rows.rows());
  rows.population = rows.rows();
  note_outside_changes();
  rows.current = SplitVariables::allocate(rows.rows(), committed_);
  rows.next = SplitVariables::allocate(rows.rows(), committed_);
  forward_pass(network_, committed_, rows);
  bound_ = std::move(rows);
  bound_cache_ = {};
  bound_cache_.enabled = true;
  point_ = Point::kBound;
  has_before_ = false;
  ++revision_;
}

// The batch's rows are about to be overwritten: if they were the point that questions are about, it is gone,
// whether the step succeeds or not.
void Trainer::resize_batch(int64_t rows) {
  point_ = bound_.defined() ? Point::kBound : Point::kNone;
  has_before_ = false;
  ++revision_;
  if (batch_storage_current_.u.empty() || batch_storage_current_.u.front().size(0) < rows) {
    batch_storage_current_ = SplitVariables::allocate(rows, committed_);
    batch_storage_next_ = SplitVariables::allocate(rows, committed_);
  }
  batch_.current = batch_storage_current_.narrow(0, rows);
  batch_.next = batch_storage_next_.narrow(0, rows);
}

void Trainer::step() {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bound_.defined(), kName, ": step() without data needs bound data; call bind(x, y) first");
  note_outside_changes();
  sweep(bound_, bound_cache_);
  point_ = Point::kBound;
}

void Trainer::step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  const at::Tensor row_weight = checked_row_weight(sample_weight, inputs.size(0));
  note_outside_changes();
  batch_.x = inputs;
  batch_.y = targets;
  batch_.row_weight = row_weight;
  batch_.population = batch_.rows();
  resize_batch(inputs.size(0));
  forward_pass(network_, committed_, batch_);
  InputBlockCache no_cache;
  sweep(batch_, no_cache);
  bound_.residuals = Residuals::kStale;
  point_ = Point::kBatch;
}

void Trainer::step_rows(const at::Tensor& index) {
  const c10::NoGradGuard no_grad;
  const at::Tensor rows = checked_index(index);
  note_outside_changes();
  resize_batch(rows.size(0));
  batch_.x = at::index_select(bound_.x, 0, rows);
  batch_.y = at::index_select(bound_.y, 0, rows);
  batch_.row_weight =
      bound_.row_weight.size(0) == 1 ? bound_.row_weight : at::index_select(bound_.row_weight, 0, rows);
  batch_.population = bound_.rows();
  for (size_t l = 0; l < network_.depth(); ++l) {
    at::index_select_out(batch_.current.u[l], bound_.current.u[l], 0, rows);
    at::index_select_out(batch_.current.v[l], bound_.current.v[l], 0, rows);
  }
  batch_.residuals = Residuals::kStale;
  InputBlockCache no_cache;
  sweep(batch_, no_cache);
  for (size_t l = 0; l < network_.depth(); ++l) {
    bound_.current.u[l].index_copy_(0, rows, batch_.current.u[l]);
    bound_.current.v[l].index_copy_(0, rows, batch_.current.v[l]);
  }
  bound_.residuals = Residuals::kStale;
  point_ = Point::kBoundRows;
}

void Trainer::check_rows(const at::Tensor& index, const at::Tensor& x, const at::Tensor& y) const {
  const at::Tensor rows = checked_index(index);
  const at::Tensor inputs = checked_inputs("x", x);
  TORCH_CHECK_VALUE(inputs.size(0) == rows.size(0), kName, ": x must have as many rows as index, ",
                    rows.size(0), " (got ", x.sizes(), ")");
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  TORCH_CHECK_VALUE(at::equal(inputs, at::index_select(bound_.x, 0, rows)) &&
                        at::equal(targets, at::index_select(bound_.y, 0, rows)),
                    kName, ": x and y must be rows `index` of the bound data");
}

// One sweep over `rows`, committed only when all of it has succeeded.
void Trainer::sweep(RowSet& rows, InputBlockCache& cache) {
  has_before_ = false;
  const SweepState state{network_, committed_, next_, rows, cache, observer_};
  const Residuals residuals =
      network_.splitting == Splitting::kTwo ? sweep_two_splitting(state) : sweep_three_splitting(state);
  check_finite(rows);
  copy_maps(next_, parameters_);
  std::swap(committed_, next_);
  std::swap(rows.current, rows.next);
  if (&rows == &batch_) {
    std::swap(batch_storage_current_, batch_storage_next_);
  }
  rows.residuals = residuals;
  has_before_ = true;
  ++sweeps_;
  ++revision_;
}

// Every variable reaches a weight of the same sweep, so the weights tell whether all is finite;
// only where they are not is the first bad block, in the order of the sweep, looked for.
void Trainer::check_finite(const RowSet& rows) const {
  bool finite = true;
  for (const AffineMap& map : next_) {
    finite = finite && all_finite(map.weight) && (!map.bias.defined() || all_finite(map.bias));
  }
  if (finite) {
    return;
  }
  for (size_t l = network_.depth(); l-- > 0;) {
    for (const auto& [block, value] : {std::pair{"V", rows.next.v[l]}, std::pair{"U", rows.next.u[l]},
                                       std::pair{"W", next_[l].weight}, std::pair{"W", next_[l].bias}}) {
      TORCH_CHECK_LINALG(!value.defined() || all_finite(value), block_name(network_, block, l),
                         ": the update is not finite");
    }
  }
}

const RowSet& Trainer::point(bool last_rows, When when) const {
  TORCH_CHECK_VALUE(point_ != Point::kNone, kName, ": no data yet; call bind(x, y) or step(x, y) first");
  TORCH_CHECK_VALUE(when == When::kAfter || has_before_, kName,
                    ": there is no sweep whose starting point is still known");
  const bool batch =
      point_ == Point::kBatch || (point_ == Point::kBoundRows && (last_rows || when == When::kBefore));
  return batch ? batch_ : bound_;
}

ObjectiveTerms Trainer::objective(bool last_rows, When when) {
  const c10::NoGradGuard no_grad;
  const RowSet& rows = point(last_rows, when);
  if (when == When::kBefore) {
    return objective_terms(network_, next_, rows, rows.next);
  }
  note_outside_changes();
  refresh_residuals(network_, committed_, &rows == &batch_ ? batch_ : bound_);
  return objective_terms(network_, committed_, rows, rows.current);
}

TrainerState Trainer::variables(bool last_rows, When when) {
  const c10::NoGradGuard no_grad;
  const RowSet& rows = point(last_rows, when);
  if (network_.splitting == Splitting::kTwo && when == When::kAfter) {
    note_outside_changes();
    refresh_residuals(network_, committed_, &rows == &batch_ ? batch_ : bound_);
  }
  const SplitVariables& at = when == When::kBefore ? rows.next : rows.current;
  TrainerState result;
  result["x"] = {rows.x};
  result["y"] = {rows.y};
  result["row_weight"] = {rows.row_weight};
  result["u"] = clone_all(at.u);
  result["v"] = clone_all(at.v);
  for (const AffineMap& map : when == When::kBefore ? next_ : parameters_) {
    result["weight"].push_back(map.weight.clone());
    result["bias"].push_back(map.bias.defined() ? map.bias.clone() : map.bias);
  }
  return result;
}

TrainerState Trainer::state() const {
  const c10::NoGradGuard no_grad;
  TrainerState state;
  state["sweeps"] = {at::scalar_tensor(sweeps_, at::kLong)};
  if (bound_.defined()) {
    state["x"] = {bound_.x};
    state["y"] = {bound_.y};
    state["row_weight"] = {bound_.row_weight.clone()};
    state["u"] = clone_all(bound_.current.u);
    state["v"] = clone_all(bound_.current.v);
    // The first layer's residual is recomputed from the data, to the same bits; the others, which
    // came out of the solves, would not be.
    if (bound_.residuals != Residuals::kStale) {
      state["residual"] = clone_all({bound_.current.residual.begin() + 1, bound_.current.residual.end()});
    }
    for (const AffineMap& map : committed_) {
      state["weight"].push_back(map.weight.clone());
      state["bias"].push_back(map.bias.defined() ? map.bias.clone() : map.bias);
    }
  }
  return state;
}

void Trainer::load_state(const TrainerState& state) {
  const c10::NoGradGuard no_grad;
  const auto entry = [&](const char* name, size_t count) -> const std::vector<at::Tensor>& {
    const auto found = state.find(name);
    TORCH_CHECK_VALUE(found != state.end() && found->second.size() == count, kName, ": the state must hold ",
                      count, " tensors named '", name, "' (got ",
                      found == state.end() ? 0 : found->second.size(), ")");
    return found->second;
  };
  const int64_t sweeps = entry("sweeps", 1)[0].item<int64_t>();
  has_before_ = false;
  ++revision_;
  if (state.find("x") == state.end()) {
    bound_ = {};
    bound_cache_ = {};
    point_ = Point::kNone;
    sweeps_ = sweeps;
    return;
  }
  const size_t depth = network_.depth();
  RowSet rows;
  rows.x = checked_inputs("state['x']", entry("x", 1)[0]);
  rows.y = checked_targets("state['y']", entry("y", 1)[0], rows.rows());
  const at::Tensor& row_weight = entry("row_weight", 1)[0];
  rows.row_weight = row_weight.size(0) == 1 ? checked_row_weight({}, 1)
                                            : checked_row_weight(row_weight.squeeze(1), rows.rows());
  rows.population = rows.rows();
  rows.current = SplitVariables::allocate(rows.rows(), committed_);
  rows.next = SplitVariables::allocate(rows.rows(), committed_);
  std::vector<AffineMap> weights = allocate_like(committed_);
  const auto copy = [&](const char* name, size_t l, const at::Tensor& source, const at::Tensor& target) {
    TORCH_CHECK_VALUE(
        source.defined() == target.defined() && (!target.defined() || source.sizes() == target.sizes()),
        kName, ": state['", name, "'] of layer ", l + 1, " does not fit this model and its data");
    if (target.defined()) {
      target.copy_(source);
    }
  };
  const auto load = [&](const char* name, size_t l, const at::Tensor& target) {
    copy(name, l, entry(name, depth)[l], target);
  };
  for (size_t l = 0; l < depth; ++l) {
    load("u", l, rows.current.u[l]);
    load("v", l, rows.current.v[l]);
    load("weight", l, weights[l].weight);
    load("bias", l, weights[l].bias);
  }
  if (state.find("residual") != state.end()) {
    for (size_t l = 1; l < depth; ++l) {
      copy("residual", l, entry("residual", depth - 1)[l - 1], rows.current.residual[l]);
    }
    rows.residuals = Residuals::kAllButFirst;
  }
  bound_ = std::move(rows);
  bound_cache_ = {};
  bound_cache_.enabled = true;
  committed_ = std::move(weights);
  point_ = Point::kBound;
  sweeps_ = sweeps;
}

}  // namespace torchbcd
