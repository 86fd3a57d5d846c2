#include "engine/dladmm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/proximal_gradient.h"
#include "engine/weight_step.h"
#include "ops/passes.h"
#include "ops/summed_passes.h"

namespace torchbcd {

DladmmTrainer::DladmmTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                             const std::vector<functors::Activation>& activations, const functors::Loss& loss)
    : MlpTrainer("torchbcd.DLADMM", weights, biases, activations, loss),
      activations_(activations),
      layers_(weights.size()) {
  TORCH_CHECK_VALUE(std::holds_alternative<functors::Identity>(activations.back()), name_,
                    ": the last layer must have no activation, since R is a function of z_L");
}

void DladmmTrainer::set_layer_options(size_t layer, const DladmmLayer& options) {
  check_layer(layer);
  check_positive("the penalty", layer, options.penalty);
  check_regularizer(name_, "weight_regularizer", layer, options.weight_regularizer);
  layers_[layer] = options;
}

DladmmTrainer::Rows DladmmTrainer::allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight) const {
  Rows rows;
  const int64_t n = x.size(0);
  rows.x = std::move(x);
  rows.y = std::move(y);
  rows.row_weight = std::move(row_weight);
  int64_t widest = 0;
  for (size_t l = 0; l < depth(); ++l) {
    const int64_t width = committed_[l].weight.size(0);
    widest = std::max(widest, width);
    for (DladmmVariables* variables : {&rows.current, &rows.next}) {
      variables->z.push_back(at::empty({n, width}, rows.x.options()));
      variables->q.push_back(at::empty({n, width}, rows.x.options()));
      if (l + 1 < depth()) {
        variables->a.push_back(at::empty({n, width}, rows.x.options()));
      } else {
        variables->u = at::zeros_like(variables->z.back());
      }
    }
  }
  for (int which = 0; which < 3; ++which) {
    rows.scratch.push_back(at::empty({n * widest}, rows.x.options()));
  }
  return rows;
}

void DladmmTrainer::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const c10::NoGradGuard no_grad;
  at::Tensor inputs = checked_inputs("x", x);
  at::Tensor targets = checked_targets("y", y, inputs.size(0));
  at::Tensor row_weight = checked_row_weight(sample_weight, inputs.size(0));
  note_changes();
  rows_ = allocate(std::move(inputs), std::move(targets), std::move(row_weight));
  DladmmVariables& v = rows_.current;
  forward_out(rows_.x, committed_, activations_, v.q, v.a);
  for (size_t l = 0; l < depth(); ++l) {
    v.z[l].copy_(v.q[l]);
  }
  ++revision_;
}

void DladmmTrainer::note_changes() {
  if (note_outside_changes() && bound()) {
    products_out(rows_.x, rows_.current.a, committed_, rows_.current.q);
  }
}

void DladmmTrainer::check_bound() const {
  TORCH_CHECK_VALUE(bound(), name_, ": no data yet; call bind(x, y) first");
}

void DladmmTrainer::done(const char* block, size_t layer) const {
  if (observer_) {
    observer_(block, layer);
  }
}

at::Tensor DladmmTrainer::scratch(int which, int64_t columns) const {
  return rows_.scratch[which].narrow(0, 0, rows_.x.size(0) * columns).view({rows_.x.size(0), columns});
}

// What q_l is drawn to. The multiplier completes the square: <u, z - q> + rho/2 |z - q|^2 is
// rho/2 |z + u/rho - q|^2 but for a constant.
at::Tensor DladmmTrainer::target(size_t l) const {
  if (l + 1 < depth()) {
    return rows_.next.z[l];
  }
  at::Tensor t = scratch(2, rows_.next.z[l].size(1));
  t.copy_(rows_.next.z[l]);
  return t.add_(rows_.next.u, 1 / layers_[l].penalty);
}

// a_l: a gradient step on nu/2 |a - h(z_l)|^2 + penalty/2 |target - q_{l+1}|^2, a quadratic, with exact line
// search.
void DladmmTrainer::state_block(size_t l, DladmmReport& report) {
  DladmmVariables& v = rows_.next;
  const double nu = layers_[l].penalty;
  const double penalty = layers_[l + 1].penalty;
  const at::Tensor& weight = next_[l + 1].weight;
  at::Tensor residual = scratch(0, weight.size(0));
  at::Tensor gradient = scratch(1, weight.size(1));
  passes::difference(v.q[l + 1], target(l + 1), residual);
  passes::activation(v.z[l], activations_[l], gradient);
  gradient.sub_(v.a[l]).mul_(-nu).addmm_(residual, weight, 1, penalty);
  at::mm_out(residual, gradient, weight.t());
  report.products += 2;
  const double square = passes::sum_of_squares(gradient);
  if (square > 0) {
    const double tau = nu + penalty * passes::sum_of_squares(residual) / square;
    v.a[l].sub_(gradient, 1 / tau);
    v.q[l + 1].sub_(residual, 1 / tau);
    report.tau[l] = tau;
  }
  done("a", l);
}

// z_l: the activation's prox; the loss's in the last layer.
void DladmmTrainer::auxiliary_block(size_t l) {
  DladmmVariables& v = rows_.next;
  if (l + 1 < depth()) {
    passes::prox_activation(v.a[l], v.q[l], activations_[l], 1, v.z[l]);
  } else {
    v.z[l].copy_(v.q[l]).sub_(v.u, 1 / layers_[l].penalty);
    passes::loss_update(rows_.y, v.z[l], rows_.row_weight, loss_, {}, loss_weight_.of_row(rows_.x.size(0)),
                        layers_[l].penalty, v.z[l]);
  }
  done("z", l);
}

// b_l: the mean residual, exactly.
void DladmmTrainer::bias_block(size_t l) {
  if (!next_[l].bias.defined()) {
    return;
  }
  DladmmVariables& v = rows_.next;
  const at::Tensor residual = scratch(0, v.q[l].size(1));
  passes::difference(v.q[l], target(l), residual);
  const at::Tensor mean = residual.sum(0).div_(static_cast<double>(rows_.x.size(0)));
  next_[l].bias.sub_(mean);
  v.q[l].sub_(mean);
  done("b", l);
}

void DladmmTrainer::weight_block(size_t l, DladmmReport& report) {
  DladmmVariables& v = rows_.next;
  const at::Tensor residual = scratch(0, v.q[l].size(1));
  const at::Tensor goal = target(l);
  passes::difference(v.q[l], goal, residual);
  const DladmmLayer& layer = layers_[l];
  const at::Tensor& a = input(v, l);
  const double guess = report_.theta.size() == depth() && report_.theta[l] > 0
                           ? 0.8 * report_.theta[l]
                           : layer.penalty * passes::sum_of_squares(a);
  const AffineMap from = {next_[l].weight.clone(), {}};
  const WeightStep step = weight_step(a, goal, from, layer.penalty, layer.weight_regularizer, guess,
                                      {residual, scratch(1, v.q[l].size(1))}, {next_[l].weight, {}}, v.q[l]);
  report.theta[l] = step.theta;
  report.products += step.products;
  done("W", l);
}

const DladmmReport& DladmmTrainer::step() {
  const c10::NoGradGuard no_grad;
  check_bound();
  note_changes();
  DladmmVariables& v = rows_.next;
  copy_maps(committed_, next_);
  for (size_t l = 0; l < depth(); ++l) {
    v.z[l].copy_(rows_.current.z[l]);
    v.q[l].copy_(rows_.current.q[l]);
    if (l + 1 < depth()) {
      v.a[l].copy_(rows_.current.a[l]);
    }
  }
  v.u.copy_(rows_.current.u);
  DladmmReport report;
  report.theta.resize(depth());
  report.tau.resize(depth() - 1);
  for (size_t l = depth(); l-- > 0;) {
    if (l + 1 < depth()) {
      state_block(l, report);
    }
    auxiliary_block(l);
    bias_block(l);
    weight_block(l, report);
  }
  for (size_t l = 0; l < depth(); ++l) {
    weight_block(l, report);
    bias_block(l);
    auxiliary_block(l);
    if (l + 1 < depth()) {
      state_block(l, report);
    }
  }
  const at::Tensor residual = scratch(0, v.u.size(1));
  report.primal_residual = std::sqrt(passes::difference(v.z.back(), v.q.back(), residual));
  v.u.add_(residual, layers_.back().penalty);
  done("u", depth() - 1);
  check_next_weights();
  TORCH_CHECK_LINALG(all_finite(v.z.back()) && all_finite(v.u), block_name(name_, depth(), "z", depth() - 1),
                     ": the update is not finite");
  commit();
  std::swap(rows_.current, rows_.next);
  report_ = std::move(report);
  return report_;
}

ObjectiveTerms DladmmTrainer::objective() {
  const c10::NoGradGuard no_grad;
  check_bound();
  note_changes();
  const DladmmVariables& v = rows_.current;
  ObjectiveTerms terms;
  for (size_t l = 0; l < depth(); ++l) {
    const double penalty = layers_[l].penalty;
    const at::Tensor residual = scratch(0, v.z[l].size(1));
    terms.affine_penalty.push_back(penalty / 2 * passes::difference(v.z[l], v.q[l], residual));
    terms.weight_penalty.push_back(regularizer_value(layers_[l].weight_regularizer, committed_[l].weight));
    terms.state_penalty.push_back(0);
    double gap = 0;
    if (l + 1 < depth()) {
      passes::activation(v.z[l], activations_[l], residual);
      gap = penalty / 2 * passes::difference(residual, v.a[l], residual);
    } else {
      terms.affine_penalty.back() += residual.mul_(v.u).sum(at::kDouble).item<double>();
    }
    terms.activation_penalty.push_back(gap);
  }
  const at::Tensor losses = passes::row_losses(rows_.y, v.z.back(), loss_).mul_(rows_.row_weight);
  terms.loss = loss_weight_.of_row(rows_.x.size(0)) * losses.sum(at::kDouble).item<double>();
  return terms;
}

TrainerState DladmmTrainer::variables() {
  check_bound();
  const c10::NoGradGuard no_grad;
  TrainerState result;
  result["x"] = {rows_.x};
  result["y"] = {rows_.y};
  result["z"] = clone_all(rows_.current.z);
  result["a"] = clone_all(rows_.current.a);
  result["u"] = {rows_.current.u.clone()};
  save_maps(parameters_, "weight", "bias", result);
  return result;
}

TrainerState DladmmTrainer::state() const {
  const c10::NoGradGuard no_grad;
  TrainerState state;
  state["sweeps"] = {at::scalar_tensor(sweeps_, at::kLong)};
  if (!bound()) {
    return state;
  }
  state["x"] = {rows_.x};
  state["y"] = {rows_.y};
  state["row_weight"] = {rows_.row_weight.clone()};
  state["z"] = clone_all(rows_.current.z);
  state["a"] = clone_all(rows_.current.a);
  state["q"] = clone_all(rows_.current.q);
  state["u"] = {rows_.current.u.clone()};
  save_maps(committed_, "weight", "bias", state);
  state["theta"] = {from_doubles(report_.theta)};
  return state;
}

void DladmmTrainer::load_state(const TrainerState& state) {
  const c10::NoGradGuard no_grad;
  const auto entry = [&](const char* key, size_t count) -> const std::vector<at::Tensor>& {
    return state_entry(name_, state, key, count);
  };
  const int64_t sweeps = entry("sweeps", 1)[0].item<int64_t>();
  if (state.find("x") == state.end()) {
    rows_ = {};
    sweeps_ = sweeps;
    ++revision_;
    return;
  }
  const at::Tensor x = checked_inputs("state['x']", entry("x", 1)[0]);
  const at::Tensor y = checked_targets("state['y']", entry("y", 1)[0], x.size(0));
  Rows rows = allocate(x, y, loaded_row_weight(state, x.size(0)));
  std::vector<AffineMap> weights = allocate_like(committed_);
  load_entry(name_, state, "z", rows.current.z);
  load_entry(name_, state, "a", rows.current.a);
  load_entry(name_, state, "q", rows.current.q);
  load_entry(name_, state, "u", {rows.current.u});
  load_maps(name_, state, "weight", "bias", weights);
  DladmmReport report;
  report.theta = to_doubles(entry("theta", 1)[0]);
  rows_ = std::move(rows);
  committed_ = std::move(weights);
  report_ = std::move(report);
  sweeps_ = sweeps;
  ++revision_;
}

}  // namespace torchbcd
