#include "engine/bcd_trainer.h"

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
BcdTrainer::BcdTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                       const std::vector<functors::Activation>& activations, const functors::Loss& loss)
    : MlpTrainer("torchbcd.BCD", weights, biases, activations, loss) {
  network_.name = name_;
  for (const functors::Activation& activation : activations) {
    network_.layers.push_back({activation, {}});
  }
  network_.loss = loss;
}

void BcdTrainer::set_layer_options(size_t layer, const LayerOptions& options) {
  check_layer(layer);
  for (const auto& [name, value] :
       {std::pair{"gamma", options.gamma}, std::pair{"rho", options.rho}, std::pair{"alpha", options.alpha},
        std::pair{"alpha_weight", options.alpha_weight}}) {
    check_positive(name, layer, value);
  }
  check_regularizer(name_, "weight_regularizer", layer, options.weight_regularizer);
  check_regularizer(name_, "state_regularizer", layer, options.state_regularizer);
  network_.layers[layer].options = options;
}

void BcdTrainer::set_order(UpdateOrder order, int64_t inner_sweeps) {
  TORCH_CHECK_VALUE(inner_sweeps >= 1, name_, ": inner_sweeps must be at least 1 (got ", inner_sweeps, ")");
  network_.order = order;
  network_.inner_sweeps = inner_sweeps;
}

void BcdTrainer::set_loss_weight(double weight, bool mean) {
  MlpTrainer::set_loss_weight(weight, mean);
  network_.loss_weight = loss_weight_;
}

void BcdTrainer::set_sum_over_ranks(SumOverRanks sum) {
  network_.sum_over_ranks = std::move(sum);
  unbind();
}

void BcdTrainer::unbind() {
  bound_ = {};
  bound_cache_ = {};
  point_ = Point::kNone;
  has_before_ = false;
  ++revision_;
}

int64_t BcdTrainer::rows_of_all_ranks(int64_t rows) const {
  auto total = static_cast<double>(rows);
  if (network_.sum_over_ranks) {
    sum_over_ranks(network_.sum_over_ranks, parameters_.front().weight.device(), {&total});
  }
  return static_cast<int64_t>(total);
}

at::Tensor BcdTrainer::checked_index(const at::Tensor& index) const {
  TORCH_CHECK_VALUE(bound_.defined(), name_, ": step(index=...) needs bound data; call bind(x, y) first");
  TORCH_CHECK_TYPE(index.scalar_type() == at::kLong || index.scalar_type() == at::kInt, name_,
                   ": index must be an int64 tensor (got ", index.scalar_type(), ")");
  TORCH_CHECK_VALUE(index.dim() == 1 && index.size(0) > 0, name_,
                    ": index must have shape (m,) with m > 0 (got ", index.sizes(), ")");
  const at::Tensor sorted = std::get<0>(index.to(bound_.x.device(), at::kLong).sort());
  const int64_t least = sorted[0].item<int64_t>();
  const int64_t greatest = sorted[-1].item<int64_t>();
  TORCH_CHECK_VALUE(least >= 0 && greatest < bound_.rows(), name_, ": index must hold rows from 0 to ",
                    bound_.rows() - 1, " (got ", least < 0 ? least : greatest, ")");
  const int64_t m = sorted.size(0);
  TORCH_CHECK_VALUE(
      m == 1 || at::ne(sorted.narrow(0, 1, m - 1), sorted.narrow(0, 0, m - 1)).all().item<bool>(), name_,
      ": index must not hold a row twice");
  return index.to(bound_.x.device(), at::kLong);
}

// The residuals of bound rows are those of `committed_`.
void BcdTrainer::note_changes() {
  if (note_outside_changes()) {
    bound_.residuals = Residuals::kStale;
    batch_.residuals = Residuals::kStale;
  }
}

void BcdTrainer::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  RowSet rows;
  rows.x = checked_inputs("x", x);
  rows.y = checked_targets("y", y, rows.x.size(0));
  rows.row_weight = checked_row_weight(sample_weight, rows.rows());
  rows.population = rows_of_all_ranks(rows.rows());
  note_changes();
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
void BcdTrainer::resize_batch(int64_t rows) {
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

void BcdTrainer::step() {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bound_.defined(), name_, ": step() without data needs bound data; call bind(x, y) first");
  note_changes();
  sweep(bound_, bound_cache_);
  point_ = Point::kBound;
}

void BcdTrainer::step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  const at::Tensor row_weight = checked_row_weight(sample_weight, inputs.size(0));
  note_changes();
  batch_.x = inputs;
  batch_.y = targets;
  batch_.row_weight = row_weight;
  batch_.population = rows_of_all_ranks(batch_.rows());
  resize_batch(inputs.size(0));
  forward_pass(network_, committed_, batch_);
  InputBlockCache no_cache;
  sweep(batch_, no_cache);
  bound_.residuals = Residuals::kStale;
  point_ = Point::kBatch;
}

void BcdTrainer::step_rows(const at::Tensor& index) {
  const c10::NoGradGuard no_grad;
  const at::Tensor rows = checked_index(index);
  note_changes();
  resize_batch(rows.size(0));
  batch_.x = at::index_select(bound_.x, 0, rows);
  batch_.y = at::index_select(bound_.y, 0, rows);
  batch_.row_weight =
      bound_.row_weight.size(0) == 1 ? bound_.row_weight : at::index_select(bound_.row_weight, 0, rows);
  batch_.population = bound_.population;
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

void BcdTrainer::check_rows(const at::Tensor& index, const at::Tensor& x, const at::Tensor& y) const {
  const at::Tensor rows = checked_index(index);
  const at::Tensor inputs = checked_inputs("x", x);
  TORCH_CHECK_VALUE(inputs.size(0) == rows.size(0), name_, ": x must have as many rows as index, ",
                    rows.size(0), " (got ", x.sizes(), ")");
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  TORCH_CHECK_VALUE(at::equal(inputs, at::index_select(bound_.x, 0, rows)) &&
                        at::equal(targets, at::index_select(bound_.y, 0, rows)),
                    name_, ": x and y must be rows `index` of the bound data");
}

// One sweep over `rows`, committed only when all of it has succeeded.
void BcdTrainer::sweep(RowSet& rows, InputBlockCache& cache) {
  TORCH_CHECK_VALUE(!network_.sum_over_ranks || network_.splitting == Splitting::kThree, name_,
                    ": rows in several processes need splitting 3, whose W blocks are least squares");
  has_before_ = false;
  const SweepState state{network_, committed_, next_, rows, cache, observer_};
  const Residuals residuals =
      network_.splitting == Splitting::kTwo ? sweep_two_splitting(state) : sweep_three_splitting(state);
  check_finite(rows);
  commit();
  std::swap(rows.current, rows.next);
  if (&rows == &batch_) {
    std::swap(batch_storage_current_, batch_storage_next_);
  }
  rows.residuals = residuals;
  has_before_ = true;
}

// Every variable reaches a weight of the same sweep, so the weights tell whether all is finite;
// only where they are not is the first bad block, in the order of the sweep, looked for.
void BcdTrainer::check_finite(const RowSet& rows) const {
  if (all_finite(next_)) {
    return;
  }
  for (size_t l = network_.depth(); l-- > 0;) {
    for (const auto& [block, value] : {std::pair{"V", rows.next.v[l]}, std::pair{"U", rows.next.u[l]},
                                       std::pair{"W", next_[l].weight}, std::pair{"W", next_[l].bias}}) {
      TORCH_CHECK_LINALG(!value.defined() || all_finite(value), block_name(name_, depth(), block, l),
                         ": the update is not finite");
    }
  }
}

const RowSet& BcdTrainer::point(bool last_rows, When when) const {
  TORCH_CHECK_VALUE(point_ != Point::kNone, name_, ": no data yet; call bind(x, y) or step(x, y) first");
  TORCH_CHECK_VALUE(when == When::kAfter || has_before_, name_,
                    ": there is no sweep whose starting point is still known");
  const bool batch =
      point_ == Point::kBatch || (point_ == Point::kBoundRows && (last_rows || when == When::kBefore));
  return batch ? batch_ : bound_;
}

ObjectiveTerms BcdTrainer::objective(bool last_rows, When when) {
  const c10::NoGradGuard no_grad;
  const RowSet& rows = point(last_rows, when);
  if (when == When::kBefore) {
    return objective_terms(network_, next_, rows, rows.next);
  }
  note_changes();
  refresh_residuals(network_, committed_, &rows == &batch_ ? batch_ : bound_);
  return objective_terms(network_, committed_, rows, rows.current);
}

TrainerState BcdTrainer::variables(bool last_rows, When when) {
  const c10::NoGradGuard no_grad;
  const RowSet& rows = point(last_rows, when);
  if (network_.splitting == Splitting::kTwo && when == When::kAfter) {
    note_changes();
    refresh_residuals(network_, committed_, &rows == &batch_ ? batch_ : bound_);
  }
  const SplitVariables& at = when == When::kBefore ? rows.next : rows.current;
  TrainerState result;
  result["x"] = {rows.x};
  result["y"] = {rows.y};
  result["row_weight"] = {rows.row_weight};
  result["u"] = clone_all(at.u);
  result["v"] = clone_all(at.v);
  save_maps(when == When::kBefore ? next_ : parameters_, "weight", "bias", result);
  return result;
}

TrainerState BcdTrainer::state() const {
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
    save_maps(committed_, "weight", "bias", state);
  }
  return state;
}

void BcdTrainer::load_state(const TrainerState& state) {
  const c10::NoGradGuard no_grad;
  const auto entry = [&](const char* key, size_t count) -> const std::vector<at::Tensor>& {
    return state_entry(name_, state, key, count);
  };
  const int64_t sweeps = entry("sweeps", 1)[0].item<int64_t>();
  if (state.find("x") == state.end()) {
    unbind();
    sweeps_ = sweeps;
    return;
  }
  has_before_ = false;
  ++revision_;
  RowSet rows;
  rows.x = checked_inputs("state['x']", entry("x", 1)[0]);
  rows.y = checked_targets("state['y']", entry("y", 1)[0], rows.rows());
  rows.row_weight = loaded_row_weight(state, rows.rows());
  rows.population = rows_of_all_ranks(rows.rows());
  rows.current = SplitVariables::allocate(rows.rows(), committed_);
  rows.next = SplitVariables::allocate(rows.rows(), committed_);
  std::vector<AffineMap> weights = allocate_like(committed_);
  load_entry(name_, state, "u", rows.current.u);
  load_entry(name_, state, "v", rows.current.v);
  load_maps(name_, state, "weight", "bias", weights);
  if (state.find("residual") != state.end()) {
    load_entry(name_, state, "residual", {rows.current.residual.begin() + 1, rows.current.residual.end()});
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
