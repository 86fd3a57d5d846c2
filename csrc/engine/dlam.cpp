#include "engine/dlam.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "engine/dlam_sweep.h"
#include "engine/proximal_gradient.h"
#include "ops/passes.h"
#include "ops/registry.h"
#include "ops/summed_passes.h"

namespace torchbcd {
namespace {

constexpr int64_t kRefreshEvery = 50;  // sweeps after which q, updated by differences, is computed afresh

// The most that |a - h(z)| - eps can owe to rounding.
double rounding_of(const at::Tensor& values, double eps) {
  const double unit = values.scalar_type() == at::kFloat ? std::numeric_limits<float>::epsilon()
                                                         : std::numeric_limits<double>::epsilon();
  const double largest = values.numel() > 0 ? values.abs().max().item<double>() : 0;
  return 8 * unit * (largest + eps);
}

}  // namespace

DlamTrainer::DlamTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                         const std::vector<functors::Activation>& activations, const functors::Loss& loss)
    : MlpTrainer("torchbcd.DLAM", weights, biases, activations, loss),
      activations_(activations),
      layers_(weights.size()) {
  for (size_t l = 0; l + 1 < depth(); ++l) {
    check_monotone(("torchbcd.DLAM: layer " + std::to_string(l + 1)).c_str(), activations[l]);
  }
  TORCH_CHECK_VALUE(std::holds_alternative<functors::Identity>(activations.back()), name_,
                    ": the last layer must have no activation, since R is a function of z_L");
  previous_ = allocate_like(committed_);
  copy_maps(committed_, previous_);
}

void DlamTrainer::set_layer_options(size_t layer, const DlamLayer& options) {
  check_layer(layer);
  check_positive("rho", layer, options.rho);
  check_regularizer(name_, "weight_regularizer", layer, options.weight_regularizer);
  layers_[layer] = options;
}

void DlamTrainer::set_options(const DlamOptions& options) {
  TORCH_CHECK_VALUE(std::isfinite(options.weight_damping) && options.weight_damping >= 0, name_,
                    ": weight_damping must be a finite number >= 0 (got ", options.weight_damping, ")");
  TORCH_CHECK_VALUE(options.output_solver == OutputSolver::kProx || has_lipschitz_gradient(loss_), name_,
                    ": output_solver 'fista' needs a loss with a Lipschitz gradient: squared, logistic or "
                    "cross_entropy");
  options_ = options;
}

void DlamTrainer::check_eps(double eps) const {
  TORCH_CHECK_VALUE(std::isfinite(eps) && (eps > 0 || (eps == 0 && options_.joint)), name_,
                    ": eps must be a finite positive number, or 0 with joint=True (got ", eps, ")");
}

void DlamTrainer::allocate(DlamRows& rows) const {
  const int64_t n = rows.rows();
  const at::TensorOptions kind = committed_.front().weight.options();
  int64_t widest = 0;
  const auto layer_like = [&](size_t l) { return at::empty({n, committed_[l].weight.size(0)}, kind); };
  for (size_t l = 0; l < depth(); ++l) {
    widest = std::max(widest, committed_[l].weight.size(0));
    for (DlamVariables* variables : {&rows.current, &rows.next}) {
      variables->z.push_back(layer_like(l));
      variables->q.push_back(layer_like(l));
      if (l + 1 < depth()) {
        variables->a.push_back(layer_like(l));
      }
    }
    if (l + 1 < depth()) {
      rows.a_previous.push_back(layer_like(l));
    }
    rows.trial_q.push_back(layer_like(l));
  }
  rows.q_previous = layer_like(0);
  for (int which = 0; which < 4; ++which) {
    rows.scratch.push_back(at::empty({n * widest}, kind));
  }
  rows.theta.assign(depth(), 0);
  rows.tau.assign(depth() - 1, 0);
}

DlamRows DlamTrainer::forward_pass(const at::Tensor& x, const at::Tensor& y, const at::Tensor& row_weight,
                                   double eps) const {
  DlamRows rows;
  rows.x = x;
  rows.y = y;
  rows.row_weight = row_weight;
  rows.eps = eps;
  allocate(rows);
  forward_out(rows.x, committed_, activations_, rows.current.q, rows.current.a);
  for (size_t l = 0; l < depth(); ++l) {
    rows.current.z[l].copy_(rows.current.q[l]);
  }
  return rows;
}

// q of the current point. The extrapolations lose their past with it, unless the weights are those of the
// last sweep.
void DlamTrainer::refresh_products(DlamRows& rows) const {
  products_out(rows.x, rows.current.a, committed_, rows.current.q);
  rows.since_refresh = 0;
}

void DlamTrainer::note_changes() {
  if (note_outside_changes()) {
    copy_maps(committed_, previous_);
    for (DlamRows* rows : {&bound_, &batch_}) {
      if (rows->defined()) {
        refresh_products(*rows);
        rows->has_previous = false;
      }
    }
  }
}

void DlamTrainer::bind(const at::Tensor& x, const at::Tensor& y, double eps,
                       const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  check_eps(eps);
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  const at::Tensor row_weight = checked_row_weight(sample_weight, inputs.size(0));
  note_changes();
  bound_ = forward_pass(inputs, targets, row_weight, eps);
  at_batch_ = false;
  ++revision_;
}

const DlamReport& DlamTrainer::step(double eps) {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bound_.defined(), name_, ": step() without data needs bound data; call bind(x, y) first");
  check_eps(eps);
  note_changes();
  sweep(bound_, eps);
  at_batch_ = false;
  return report_;
}

const DlamReport& DlamTrainer::step(const at::Tensor& x, const at::Tensor& y, double eps, int64_t sweeps,
                                    const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(sweeps >= 1, name_, ": sweeps must be at least 1 (got ", sweeps, ")");
  check_eps(eps);
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  const at::Tensor row_weight = checked_row_weight(sample_weight, inputs.size(0));
  note_changes();
  DlamRows rows = forward_pass(inputs, targets, row_weight, eps);
  for (int64_t k = 0; k < sweeps; ++k) {
    sweep(rows, eps);
  }
  batch_ = std::move(rows);
  at_batch_ = true;
  if (bound_.defined()) {
    refresh_products(bound_);
    bound_.has_previous = false;
  }
  return report_;
}

// One sweep over `rows`, committed only when all of it has succeeded.
void DlamTrainer::sweep(DlamRows& rows, double eps) {
  if (rows.since_refresh >= kRefreshEvery) {
    refresh_products(rows);
  }
  if (eps < rows.eps && rows.feasible.z.empty()) {
    for (size_t l = 0; l < depth(); ++l) {
      rows.feasible.z.push_back(at::empty_like(rows.current.z[l]));
      rows.feasible.q.push_back(at::empty_like(rows.current.q[l]));
      if (l + 1 < depth()) {
        rows.feasible.a.push_back(at::empty_like(rows.current.a[l]));
      }
    }
  }
  const bool shrunk = eps < rows.eps && depth() > 1;
  const double next_nesterov = (1 + std::sqrt(1 + 4 * rows.nesterov * rows.nesterov)) / 2;
  // Algorithm 1 starts from omega^0 = -1, which eq. (17) takes for 0.
  const double omega = options_.momentum == Momentum::kNone || !rows.has_previous
                           ? 0
                           : std::max(0.0, (rows.nesterov - 1) / next_nesterov);
  DlamReport report =
      sweep_dlam({name_, activations_, layers_, options_, loss_, loss_weight_.of_row(rows.rows()), committed_,
                  previous_, next_, rows, eps, omega, observer_});
  check_next_weights();
  TORCH_CHECK_LINALG(all_finite(rows.next.z.back()), block_name(name_, depth(), "z", depth() - 1),
                     ": the update is not finite");
  commit();
  std::swap(previous_, next_);  // commit left the old parameters in next_
  std::swap(rows.q_previous, rows.current.q[0]);
  for (size_t l = 0; l + 1 < depth(); ++l) {
    std::swap(rows.a_previous[l], shrunk ? rows.feasible.a[l] : rows.current.a[l]);
  }
  std::swap(rows.current, rows.next);
  rows.has_previous = true;
  rows.nesterov = next_nesterov;
  rows.eps = eps;
  rows.theta = report.theta;
  rows.tau = report.tau;
  ++rows.since_refresh;
  report_ = std::move(report);
}

DlamRows& DlamTrainer::point() {
  TORCH_CHECK_VALUE(at_batch_ || bound_.defined(), name_,
                    ": no data yet; call bind(x, y) or step(x, y) first");
  note_changes();
  return at_batch_ ? batch_ : bound_;
}

std::vector<double> DlamTrainer::gaps() {
  const c10::NoGradGuard no_grad;
  return gaps(point());
}

std::vector<double> DlamTrainer::gaps(const DlamRows& rows) const {
  std::vector<double> gaps;
  for (size_t l = 0; l + 1 < depth(); ++l) {
    const at::Tensor image = at::empty_like(rows.current.z[l]);
    passes::activation(rows.current.z[l], activations_[l], image);
    gaps.push_back((image - rows.current.a[l]).abs_().max().item<double>() - rows.eps);
  }
  return gaps;
}

ObjectiveTerms DlamTrainer::objective() {
  const c10::NoGradGuard no_grad;
  DlamRows& rows = point();
  ObjectiveTerms terms;
  const std::vector<double> gap = gaps(rows);
  for (size_t l = 0; l < depth(); ++l) {
    const at::Tensor residual =
        rows.scratch[0].narrow(0, 0, rows.current.z[l].numel()).view_as(rows.current.z[l]);
    terms.affine_penalty.push_back(layers_[l].rho / 2 *
                                   passes::difference(rows.current.q[l], rows.current.z[l], residual));
    terms.weight_penalty.push_back(regularizer_value(layers_[l].weight_regularizer, committed_[l].weight));
    terms.state_penalty.push_back(0);
    const bool feasible = l + 1 == depth() || gap[l] <= rounding_of(rows.current.a[l], rows.eps);
    terms.activation_penalty.push_back(feasible ? 0 : std::numeric_limits<double>::infinity());
  }
  const at::Tensor losses = passes::row_losses(rows.y, rows.current.z.back(), loss_).mul_(rows.row_weight);
  terms.loss = loss_weight_.of_row(rows.rows()) * losses.sum(at::kDouble).item<double>();
  return terms;
}

TrainerState DlamTrainer::variables() {
  const c10::NoGradGuard no_grad;
  const DlamRows& rows = point();
  TrainerState result;
  result["x"] = {rows.x};
  result["y"] = {rows.y};
  result["z"] = clone_all(rows.current.z);
  result["a"] = clone_all(rows.current.a);
  save_maps(parameters_, "weight", "bias", result);
  return result;
}

TrainerState DlamTrainer::state() const {
  const c10::NoGradGuard no_grad;
  TrainerState state;
  state["sweeps"] = {at::scalar_tensor(sweeps_, at::kLong)};
  if (!bound_.defined()) {
    return state;
  }
  state["x"] = {bound_.x};
  state["y"] = {bound_.y};
  state["row_weight"] = {bound_.row_weight.clone()};
  state["z"] = clone_all(bound_.current.z);
  state["a"] = clone_all(bound_.current.a);
  state["q"] = clone_all(bound_.current.q);
  state["a_previous"] = clone_all(bound_.a_previous);
  state["q_previous"] = {bound_.q_previous.clone()};
  save_maps(committed_, "weight", "bias", state);
  save_maps(previous_, "weight_previous", "bias_previous", state);
  state["theta"] = {from_doubles(bound_.theta)};
  state["tau"] = {from_doubles(bound_.tau)};
  state["progress"] = {from_doubles({bound_.eps, bound_.nesterov, bound_.has_previous ? 1.0 : 0.0,
                                     static_cast<double>(bound_.since_refresh)})};
  return state;
}

void DlamTrainer::load_state(const TrainerState& state) {
  const c10::NoGradGuard no_grad;
  const auto entry = [&](const char* key, size_t count) -> const std::vector<at::Tensor>& {
    return state_entry(name_, state, key, count);
  };
  const int64_t sweeps = entry("sweeps", 1)[0].item<int64_t>();
  if (state.find("x") == state.end()) {
    bound_ = {};
    batch_ = {};
    at_batch_ = false;
    sweeps_ = sweeps;
    ++revision_;
    return;
  }
  DlamRows rows;
  rows.x = checked_inputs("state['x']", entry("x", 1)[0]);
  rows.y = checked_targets("state['y']", entry("y", 1)[0], rows.rows());
  rows.row_weight = loaded_row_weight(state, rows.rows());
  allocate(rows);
  std::vector<AffineMap> weights = allocate_like(committed_);
  std::vector<AffineMap> previous = allocate_like(committed_);
  load_entry(name_, state, "z", rows.current.z);
  load_entry(name_, state, "a", rows.current.a);
  load_entry(name_, state, "q", rows.current.q);
  load_entry(name_, state, "a_previous", rows.a_previous);
  load_entry(name_, state, "q_previous", {rows.q_previous});
  load_maps(name_, state, "weight", "bias", weights);
  load_maps(name_, state, "weight_previous", "bias_previous", previous);
  rows.theta = to_doubles(entry("theta", 1)[0]);
  rows.tau = to_doubles(entry("tau", 1)[0]);
  const std::vector<double> progress = to_doubles(entry("progress", 1)[0]);
  TORCH_CHECK_VALUE(rows.theta.size() == depth() && rows.tau.size() + 1 == depth() && progress.size() == 4,
                    name_, ": state['theta'], state['tau'] and state['progress'] do not fit this model");
  rows.eps = progress[0];
  rows.nesterov = progress[1];
  rows.has_previous = progress[2] != 0;
  rows.since_refresh = static_cast<int64_t>(progress[3]);
  bound_ = std::move(rows);
  batch_ = {};
  at_batch_ = false;
  committed_ = std::move(weights);
  previous_ = std::move(previous);
  sweeps_ = sweeps;
  ++revision_;
}

}  // namespace torchbcd
