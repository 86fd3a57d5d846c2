#include "engine/relaxed.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/proximal_gradient.h"
#include "engine/relaxed_sweep.h"
#include "ops/passes.h"
#include "ops/summed_passes.h"

namespace torchbcd {
namespace {

constexpr int kGuardHalvings = 10;

}  // namespace

RelaxedTrainer::RelaxedTrainer(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                               const std::vector<functors::Activation>& activations,
                               const functors::Loss& loss)
    : MlpTrainer("torchbcd.RelaxedBCD", weights, biases, activations, loss),
      activations_(activations),
      layers_(weights.size()) {
  TORCH_CHECK_VALUE(std::holds_alternative<functors::SquaredLoss>(loss) || identity_output(), name_,
                    ": the last layer must have no activation, unless the loss is 'squared'");
}

void RelaxedTrainer::set_layer_options(size_t layer, const RelaxedLayer& options) {
  check_layer(layer);
  const auto check = [&](const char* argument, double value, bool holds, const char* range) {
    TORCH_CHECK_VALUE(std::isfinite(value) && holds, name_, ": ", argument, " of layer ", layer + 1,
                      " must be ", range, " (got ", value, ")");
  };
  const bool quadratic = options.weight_regularizer.quadratic();
  check("relaxation (times lr)", options.relaxation,
        options.relaxation >= 0 && (quadratic ? options.relaxation < 2 : options.relaxation <= 1),
        quadratic ? "in [0, 2)" : "in [0, 1] with a regulariser that is not a squared norm");
  check("over_relaxation", options.over_relaxation,
        options.over_relaxation > 0 && options.over_relaxation < 2, "in (0, 2)");
  check("damping", options.damping, options.damping > 0, "a finite positive number");
  check("penalty_ratio", options.penalty_ratio, options.penalty_ratio > 0, "a finite positive number");
  check("cap", options.cap, options.cap >= 0, "a finite number >= 0");
  check("momentum", options.momentum, options.momentum >= 0 && options.momentum < 1, "in [0, 1)");
  check("weight_decay (times lr)", options.weight_decay,
        options.weight_decay >= 0 && options.weight_decay < 1, "in [0, 1)");
  TORCH_CHECK_VALUE(options.state_steps >= 1, name_, ": state_steps of layer ", layer + 1,
                    " must be at least 1 (got ", options.state_steps, ")");
  TORCH_CHECK_VALUE(options.row_blocks >= 1, name_, ": row_blocks of layer ", layer + 1,
                    " must be at least 1 (got ", options.row_blocks, ")");
  check_regularizer(name_, "weight_regularizer", layer, options.weight_regularizer);
  TORCH_CHECK_VALUE(options.row_blocks == 1 || options.weight_regularizer.none(), name_,
                    ": row_blocks of layer ", layer + 1, " must be 1 where it has a weight_regularizer (got ",
                    options.row_blocks, ")");
  TORCH_CHECK_VALUE(
      (options.momentum == 0 && options.weight_decay == 0) || !options.weight_regularizer.bounded(), name_,
      ": momentum and weight_decay of layer ", layer + 1,
      " must be 0 where a weight_regularizer sets bounds: they may lead out of them");
  layers_[layer] = options;
}

void RelaxedTrainer::set_options(const RelaxedOptions& options) {
  check_positive("output_penalty", options.output_penalty);
  options_ = options;
}

RelaxedRows RelaxedTrainer::allocate(int64_t n) const {
  RelaxedRows rows;
  const at::TensorOptions kind = parameters_.front().weight.options();
  int64_t widest = 0;
  for (const AffineMap& map : parameters_) {
    widest = std::max(widest, map.weight.size(0));
    for (std::vector<at::Tensor>* list : {&rows.p, &rows.v, &rows.slack, &rows.change}) {
      list->push_back(at::empty({n, map.weight.size(0)}, kind));
    }
  }
  for (int which = 0; which < 4; ++which) {
    rows.scratch.push_back(at::empty({n * widest}, kind));
  }
  return rows;
}

// Views of the first n rows of the storage, which grows as it has to.
RelaxedRows& RelaxedTrainer::batch(int64_t n) {
  if (storage_.p.empty() || storage_.p.front().size(0) < n) {
    storage_ = allocate(n);
    batch_ = {};
  }
  if (batch_.p.empty() || batch_.p.front().size(0) != n) {
    const auto cut = [n](const std::vector<at::Tensor>& whole, std::vector<at::Tensor>& part) {
      part.clear();
      for (const at::Tensor& t : whole) {
        part.push_back(t.narrow(0, 0, n));
      }
    };
    cut(storage_.p, batch_.p);
    cut(storage_.v, batch_.v);
    cut(storage_.slack, batch_.slack);
    cut(storage_.change, batch_.change);
    batch_.scratch = storage_.scratch;
  }
  return batch_;
}

// rho_N is the loss's weight where the output is clamped to the target; each one before it is a fraction of
// the next, by how much the weights between enlarge.
std::vector<double> RelaxedTrainer::penalties(const RelaxedRows& rows) const {
  std::vector<double> penalties(depth());
  penalties.back() = loss_weight_.of_row(rows.rows()) * (clamped() ? 1 : options_.output_penalty);
  std::vector<at::Tensor> weights;
  for (size_t l = 1; l < depth(); ++l) {
    weights.push_back(start()[l].weight.contiguous());
  }
  const std::vector<double> squares = passes::sums_of_squares(weights);
  for (size_t l = depth() - 1; l > 0; --l) {
    const double gain = squares[l - 1] / static_cast<double>(parameters_[l].weight.size(0));
    penalties[l - 1] = std::max(penalties[l] * layers_[l].penalty_ratio * gain, 1e-290);
  }
  return penalties;
}

double RelaxedTrainer::true_loss(const RelaxedRows& rows, const at::Tensor& outputs) const {
  return passes::row_losses(rows.y, outputs, loss_).sum(at::kDouble).item<double>();
}

bool RelaxedTrainer::any_layer(double RelaxedLayer::* option) const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [option](const RelaxedLayer& layer) { return layer.*option > 0; });
}

// Where a sweep starts: at the model's weights W, or, with momentum or decay, at (1 - decay) W + momentum D
// with the last step D.
void RelaxedTrainer::set_start() {
  const bool momentum = any_layer(&RelaxedLayer::momentum);
  if (!momentum) {
    velocity_.clear();
  }
  start_apart_ = momentum || any_layer(&RelaxedLayer::weight_decay);
  if (!start_apart_) {
    return;
  }
  TORCH_CHECK_VALUE(!options_.persistent, name_,
                    ": persistent variables go with no momentum and no weight_decay");
  if (start_storage_.empty()) {
    start_storage_ = allocate_like(parameters_);
  }
  for (size_t l = 0; l < depth(); ++l) {
    const AffineMap& from = parameters_[l];
    at::Tensor weight = start_storage_[l].weight;
    at::mul_out(weight, from.weight, at::scalar_tensor(1 - layers_[l].weight_decay, at::kDouble));
    if (!velocity_.empty()) {
      weight.add_(velocity_[l].weight, layers_[l].momentum);
    }
    if (from.bias.defined()) {
      at::Tensor bias = start_storage_[l].bias;
      bias.copy_(from.bias);
      if (!velocity_.empty()) {
        bias.add_(velocity_[l].bias, layers_[l].momentum);
      }
    }
  }
}

// With momentum: the step from the model's weights to the sweep's, before they become the model's.
void RelaxedTrainer::keep_velocity() {
  if (!any_layer(&RelaxedLayer::momentum)) {
    return;
  }
  if (velocity_.empty()) {
    velocity_ = allocate_like(parameters_);
  }
  for (size_t l = 0; l < depth(); ++l) {
    at::sub_out(velocity_[l].weight, next_[l].weight, parameters_[l].weight);
    if (next_[l].bias.defined()) {
      at::sub_out(velocity_[l].bias, next_[l].bias, parameters_[l].bias);
    }
  }
}

// The batch's true loss at the new weights must not exceed that at the old ones: the step is halved until it
// does not, and dropped if nothing helps. After a forward pass with the old weights, rows.p has their
// outputs.
void RelaxedTrainer::guard(RelaxedRows& rows, bool forward_with_old) {
  const auto loss_at = [&](const std::vector<AffineMap>& maps) {
    std::vector<at::Tensor> products;
    std::vector<at::Tensor> states;
    for (const at::Tensor& p : rows.p) {
      products.push_back(at::empty_like(p));
      states.push_back(at::empty_like(p));
    }
    forward_out(rows.x, maps, activations_, products, states);
    return true_loss(rows, states.back());
  };
  const auto loss_before = [&] {
    const at::Tensor outputs = at::empty_like(rows.p.back());
    passes::activation(rows.p.back(), activations_.back(), outputs);
    return true_loss(rows, outputs);
  };
  const double before = forward_with_old ? loss_before() : loss_at(parameters_);
  for (int halving = 0; halving <= kGuardHalvings && !(loss_at(next_) <= before); ++halving) {
    ++report_.guard_halvings;
    for (size_t l = 0; l < depth(); ++l) {
      const double weight = halving < kGuardHalvings ? 0.5 : 1.0;  // towards the old weights
      next_[l].weight.lerp_(parameters_[l].weight, weight);
      if (next_[l].bias.defined()) {
        next_[l].bias.lerp_(parameters_[l].bias, weight);
      }
    }
  }
}

void RelaxedTrainer::sweep(RelaxedRows& rows, bool persistent) {
  const bool restored = persistent && !rows.saved_u.empty();
  set_start();
  last_ = &rows;
  sweeping_ = true;
  struct Ended {
    RelaxedTrainer& trainer;
    bool complete = false;
    ~Ended() {
      trainer.sweeping_ = false;
      if (!complete) {
        trainer.last_ = nullptr;
      }
    }
  } ended{*this};
  if (restored) {
    products_out(rows.x, rows.saved_v, parameters_, rows.p);
    for (size_t l = 0; l < depth(); ++l) {
      rows.v[l].copy_(rows.saved_v[l]);
      at::sub_out(rows.slack[l], rows.saved_u[l], rows.p[l]);
    }
  } else {
    forward_out(rows.x, start(), activations_, rows.p, rows.v);
    rows.penalties = penalties(rows);
  }
  report_ = sweep_relaxed({name_, activations_, layers_, loss_, loss_weight_.of_row(rows.rows()), clamped(),
                           start(), next_, rows, restored, progress_, observer_});
  check_next_weights();
  if (options_.guard) {
    guard(rows, !restored && !start_apart_);
  }
  if (persistent) {
    rows.saved_u.resize(depth());
    rows.saved_v.resize(depth());
    for (size_t l = 0; l < depth(); ++l) {
      rows.saved_u[l] = at::add(rows.p[l], rows.slack[l]);
      rows.saved_v[l] = rows.v[l].clone();
    }
  }
  keep_velocity();
  commit();
  ended.complete = true;
}

void RelaxedTrainer::bind(const at::Tensor& x, const at::Tensor& y) {
  const c10::NoGradGuard no_grad;
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  RelaxedRows rows = allocate(inputs.size(0));
  rows.x = inputs;
  rows.y = targets;
  bound_ = std::move(rows);
  last_ = nullptr;
  ++revision_;
}

const RelaxedReport& RelaxedTrainer::step() {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(bound(), name_, ": step() without data needs bound data; call bind(x, y) first");
  sweep(bound_, options_.persistent);
  return report_;
}

const RelaxedReport& RelaxedTrainer::step(const at::Tensor& x, const at::Tensor& y) {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(!options_.persistent, name_,
                    ": persistent variables need bound data; call bind(x, y) and step()");
  const at::Tensor inputs = checked_inputs("x", x);
  const at::Tensor targets = checked_targets("y", y, inputs.size(0));
  RelaxedRows& rows = batch(inputs.size(0));
  rows.x = inputs;
  rows.y = targets;
  sweep(rows, false);
  return report_;
}

const RelaxedRows& RelaxedTrainer::point() const {
  TORCH_CHECK_VALUE(last_ != nullptr, name_,
                    ": no sweep yet whose variables are still there; call step first");
  return *last_;
}

TrainerState RelaxedTrainer::variables() const {
  const c10::NoGradGuard no_grad;
  const RelaxedRows& rows = point();
  const RelaxedProgress progress = sweeping_ ? progress_ : RelaxedProgress{0, 0};
  TrainerState result;
  result["x"] = {rows.x};
  result["y"] = {rows.y};
  for (size_t l = 0; l < depth(); ++l) {
    result["u"].push_back(l >= progress.first_moved ? at::add(rows.p[l], rows.slack[l]) : rows.p[l].clone());
    result["v"].push_back(rows.v[l].clone());
    // After a sweep next_ holds the weights before it, or what the guard refused: the sweep's own are the
    // model's.
    const AffineMap& map = !sweeping_ ? parameters_[l] : l >= progress.first_updated ? next_[l] : start()[l];
    result["weight"].push_back(map.weight.clone());
    result["bias"].push_back(map.bias.defined() ? map.bias.clone() : map.bias);
  }
  return result;
}

ObjectiveTerms RelaxedTrainer::objective() const {
  const c10::NoGradGuard no_grad;
  const RelaxedRows& rows = point();
  const TrainerState at = variables();
  ObjectiveTerms terms;
  terms.activation_penalty.assign(depth(), 0);
  terms.state_penalty.assign(depth(), 0);
  for (size_t l = 0; l < depth(); ++l) {
    const AffineMap map = {at.at("weight")[l], at.at("bias")[l]};
    const at::Tensor residual = at::empty_like(rows.p[l]);
    affine_residual_out(at.at("u")[l], l == 0 ? rows.x : at.at("v")[l - 1], map, residual);
    terms.affine_penalty.push_back(rows.penalties[l] / 2 * passes::sum_of_squares(residual));
    terms.weight_penalty.push_back(rows.penalties[l] *
                                   regularizer_value(layers_[l].weight_regularizer, map.weight));
  }
  terms.loss = clamped() ? 0 : loss_weight_.of_row(rows.rows()) * true_loss(rows, at.at("v").back());
  return terms;
}

TrainerState RelaxedTrainer::state() const {
  const c10::NoGradGuard no_grad;
  TrainerState state;
  state["sweeps"] = {at::scalar_tensor(sweeps_, at::kLong)};
  if (!velocity_.empty()) {
    save_maps(velocity_, "velocity_weight", "velocity_bias", state);
  }
  if (!bound()) {
    return state;
  }
  state["x"] = {bound_.x};
  state["y"] = {bound_.y};
  if (!bound_.saved_u.empty()) {
    state["u"] = clone_all(bound_.saved_u);
    state["v"] = clone_all(bound_.saved_v);
    state["penalty"] = {from_doubles(bound_.penalties)};
  }
  return state;
}

void RelaxedTrainer::load_state(const TrainerState& state) {
  const c10::NoGradGuard no_grad;
  const int64_t sweeps = state_entry(name_, state, "sweeps", 1)[0].item<int64_t>();
  std::vector<AffineMap> velocity;
  if (state.find("velocity_weight") != state.end()) {
    velocity = allocate_like(parameters_);
    load_maps(name_, state, "velocity_weight", "velocity_bias", velocity);
  }
  RelaxedRows rows;
  if (state.find("x") != state.end()) {
    const at::Tensor x = checked_inputs("state['x']", state_entry(name_, state, "x", 1)[0]);
    const at::Tensor y = checked_targets("state['y']", state_entry(name_, state, "y", 1)[0], x.size(0));
    rows = allocate(x.size(0));
    rows.x = x;
    rows.y = y;
    if (state.find("u") != state.end()) {
      for (const at::Tensor& t : rows.p) {
        rows.saved_u.push_back(at::empty_like(t));
        rows.saved_v.push_back(at::empty_like(t));
      }
      load_entry(name_, state, "u", rows.saved_u);
      load_entry(name_, state, "v", rows.saved_v);
      rows.penalties = to_doubles(state_entry(name_, state, "penalty", 1)[0]);
      TORCH_CHECK_VALUE(rows.penalties.size() == depth(), name_,
                        ": state['penalty'] does not fit this model");
    }
  }
  velocity_ = std::move(velocity);
  bound_ = std::move(rows);
  last_ = nullptr;
  sweeps_ = sweeps;
  ++revision_;
}

}  // namespace torchbcd
