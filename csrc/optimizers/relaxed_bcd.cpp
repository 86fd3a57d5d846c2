#include "torchbcd/relaxed_bcd.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/sub.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "blocks/input_metric.h"
#include "blocks/output_scale.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "optimizers/found_modules.h"
#include "optimizers/option_table.h"
#include "optimizers/relaxed_data.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"
#include "optimizers/trained_mlp.h"
#include "optimizers/weight_constraints.h"
#include "sweeps/layers.h"
#include "sweeps/relaxed.h"
#include "sweeps/skips.h"

namespace torchbcd {
namespace {

// Relaxations must stay below 2, and learn no better above this one.
constexpr double kMostGrown = 1.5;
// Of a hidden layer's relaxation for those of a Residual's branch.
constexpr double kPartOfBranch = 0.22;
// In nets of more Residuals than kManySkips, moves of the states add up to more than the cap is meant for.
constexpr size_t kManySkips = 8;
constexpr double kPartOfCap = 0.6;

const OptionTable& relaxed_options() {
  using Options = RelaxedBCDOptions;
  static const OptionTable table(
      "torchbcd.RelaxedBCD", std::make_shared<Options>(),
      {
          TORCHBCD_OPTION(lr, ranges::kNonNegative, "factor of every relaxation and weight decay"),
          TORCHBCD_OPTION(relaxation, ranges::kAny,
                          "how far W and b go to their ridge regression; times lr, in [0, 2)"),
          TORCHBCD_OPTION(over_relaxation, ranges::kZeroToTwo, "how far the states go of their line search"),
          TORCHBCD_OPTION(damping, ranges::kPositive, "proximal weight of W and b; None: by the targets"),
          TORCHBCD_OPTION(penalty_ratio, ranges::kPositive, "of neighbouring layers' penalties"),
          TORCHBCD_OPTION(state_steps, ranges::kAtLeastOne, "conjugate gradient steps of the states"),
          TORCHBCD_OPTION(row_blocks, ranges::kAtLeastOne, "of rows that W is solved on; > 1: not certified"),
          TORCHBCD_OPTION(cap, ranges::kPositive, "largest move of the states, of their norm; None: any"),
          TORCHBCD_OPTION(momentum, ranges::kFraction, "part of the last step; None: by the depth"),
          TORCHBCD_OPTION(weight_decay, ranges::kAny, "part of W, times lr, taken off; None: by the targets"),
          TORCHBCD_OPTION(weight_regularizer, ranges::kAny, "r_l(W_l)"),
          TORCHBCD_OPTION(guard, ranges::kAny, "keep the batch's true loss from rising"),
          TORCHBCD_OPTION(persistent, ranges::kAny, "keep U, V and penalties of bound data"),
          TORCHBCD_OPTION(output_penalty, ranges::kPositive, "rho_N of losses other than squared"),
          TORCHBCD_OPTION(loss_weight, ranges::kPositive, "of the loss term"),
          TORCHBCD_OPTION(loss_scaling, ranges::kAny, "of the loss term", {"sum", "mean"}),
          TORCHBCD_OPTION(output_relaxation, ranges::kNonNegative,
                          "relaxation of the last layer, where relaxation is one number", {}, true),
          TORCHBCD_OPTION(growth, ranges::kAtLeastOne,
                          "of the relaxations towards the input, where relaxation is one number", {}, true),
      });
  return table;
}

// Relaxations and caps where one is for all, and momentum where none is given. The layers outside of branches
// are a net of their own, along which they grow; those of a branch take a part of a move that others share.
void set_layer_defaults(const RelaxedBCDOptions& given, const std::vector<Skip>& skips,
                        RelaxedBCDOptions& options) {
  const size_t depth = options.momentum().values().size();
  size_t outside = 0;  // how many layers outside of branches follow
  for (size_t l = depth; l-- > 0;) {
    const std::optional<size_t> to_end = layers_to_end_of_branch(skips, l);
    if (given.relaxation().uniform() && l + 1 == depth) {
      options.relaxation()[l] = given.output_relaxation();
    } else if (given.relaxation().uniform()) {
      const double relaxation = given.relaxation()[0] * (to_end ? kPartOfBranch : 1);
      const auto grown = static_cast<double>(to_end.value_or(std::max<size_t>(outside, 1) - 1));
      const bool smooth = options.weight_regularizer()[l].quadratic();
      const double most = std::max(relaxation, smooth ? kMostGrown : 1);
      options.relaxation()[l] = std::min(relaxation * std::pow(given.growth(), grown), most);
    }
    outside += to_end ? 0 : 1;
  }
  RelaxedBCDOptions shortest = options;  // the net without its branches, as deep as it is
  shortest.momentum() = std::vector<std::optional<double>>(std::max<size_t>(outside, 1));
  for (size_t l = 0; l < depth; ++l) {
    if (given.cap().uniform() && given.cap()[0] && skips.size() > kManySkips) {
      options.cap()[l] = *given.cap()[0] * kPartOfCap;
    }
    const std::optional<double>& momentum = given.momentum()[l];
    options.momentum()[l] = momentum ? momentum : shortest.momentum_of(0);
  }
}

// What this sweep's Dropouts multiply states with; none where there are no Dropouts.
std::vector<at::Tensor> drawn_masks(const std::vector<Activation>& activations,
                                    const std::vector<at::Tensor>& states) {
  std::vector<at::Tensor> masks(states.size());
  bool any = false;
  for (size_t l = 0; l < states.size(); ++l) {
    if (const double p = activations[l].dropout; p > 0) {
      masks[l] = at::empty_like(states[l]).bernoulli_(1 - p).mul_(p < 1 ? 1 / (1 - p) : 0);
      any = true;
    }
  }
  return any ? masks : std::vector<at::Tensor>();
}

}  // namespace

void RelaxedBCD::Data::check_takes_weights(const char* name) const {
  for (const int64_t blocks : options.row_blocks().values()) {
    TORCH_CHECK_VALUE(blocks == 1, name,
                      ": sample_weight needs row_blocks=1, since a row that counts twice is in one block "
                      "alone (got ",
                      blocks, ")");
  }
}

RelaxedBCD::Data::Given RelaxedBCD::Data::checked(const RelaxedBCD& optimizer, const at::Tensor& x,
                                                  const at::Tensor& y, const at::Tensor& sample_weight,
                                                  const RowStorage& storage) const {
  const TrainedMlp& mlp = *optimizer.mlp_;
  const at::Tensor inputs = mlp.inputs("x", x, storage);
  const at::Tensor targets = mlp.targets("y", y, inputs.size(0), storage);
  at::Tensor row_weight;
  at::Tensor counting = y;  // rows of weight zero say nothing of what targets are
  if (sample_weight.defined()) {
    check_takes_weights(mlp.name);
    row_weight = mlp.row_weight(sample_weight, inputs.size(0), storage);
    counting = at::index_select(y, 0, row_weight.squeeze(1).nonzero().squeeze(1));
  }
  return {mlp, inputs, targets, row_weight, optimizer.tells_classes(counting)};
}

// Views of the first n rows of the storage, which grows as it has to.
RelaxedRows& RelaxedBCD::Data::resize_batch(int64_t n, const std::vector<AffineMap>& maps) {
  if (storage.p.empty() || storage.p.front().size(0) < n) {
    storage = RelaxedRows::allocate(n, maps);
    batch = {};
  }
  if (batch.p.empty() || batch.p.front().size(0) != n) {
    batch = storage.narrow(n);
  }
  return batch;
}

RelaxedBCD::RelaxedBCD(const torch::nn::Sequential& model, const RelaxedBCDOptions& options)
    : RelaxedBCD(read_mlp(model), options) {
  mlp_->reread = reader_of(model);
}

RelaxedBCD::RelaxedBCD(Mlp mlp, const RelaxedBCDOptions& options)
    : SplitOptimizer("torchbcd.RelaxedBCD", std::move(mlp), options.loss()), data_(std::make_unique<Data>()) {
  const size_t depth = mlp_->depth();
  TORCH_CHECK_VALUE(mlp_->loss.squared() || functors::is_identity(mlp_->activations.back()), mlp_->name,
                    ": the last layer must have no activation, unless the loss is 'squared'");
  data_->options = options;
  relaxed_options().spread(&data_->options, depth);
  set_layer_defaults(options, mlp_->mlp.skips, data_->options);
  check_options();
}

RelaxedBCD::RelaxedBCD(RelaxedBCD&&) noexcept = default;
RelaxedBCD::~RelaxedBCD() = default;

RelaxedBCDOptions& RelaxedBCD::options() { return data_->options; }
const OptionTable& RelaxedBCD::table() { return relaxed_options(); }
const OptionTable& RelaxedBCD::option_table() const { return table(); }
void* RelaxedBCD::option_values() const { return &data_->options; }
bool RelaxedBCD::bound() const { return data_->bound.defined(); }
const RelaxedReport& RelaxedBCD::report() const { return data_->report; }

void RelaxedBCD::check_takes_ranks() const {
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    TORCH_CHECK_VALUE(
        data_->options.row_blocks()[l] == 1, mlp_->name,
        ": a process_group needs row_blocks=1, since blocks of rows are not solved for exactly (got ",
        data_->options.row_blocks()[l], " in layer ", l + 1, ")");
  }
  check_same_in_processes(mlp_->name, "weight_regularizer", data_->options.weight_regularizer());
}

void RelaxedBCD::unbind() {
  data_->bound = {};
  keep_in(nullptr);
  data_->last = nullptr;
  data_->standardize.reset();
}

void RelaxedBCD::set_lr(double lr) { set_option("lr", {lr}); }

void RelaxedBCD::check_options_together() const {
  if (has_other_ranks()) {
    check_takes_ranks();
  }
  const RelaxedBCDOptions& o = data_->options;
  for (const Skip& skip : mlp_->mlp.skips) {
    TORCH_CHECK_VALUE(skip.from < 0 || !functors::is_discrete(mlp_->activations[skip.from]), mlp_->name,
                      ": a Residual must not begin with the signs of layer ", skip.from + 1,
                      ", whose block is discrete");
  }
  bool moves_start = false;
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    TORCH_CHECK_VALUE(
        mlp_->mlp.activations[l].normalization.none() || !functors::is_discrete(mlp_->activations[l]),
        mlp_->name, ": the signs of layer ", l + 1, " must have no LayerNorm beside them");
    const auto check = [&](const char* option, double value, bool holds, const char* range) {
      TORCH_CHECK_VALUE(holds, mlp_->name, ": ", option, " of layer ", l + 1, " must be ", range, " (got ",
                        value, ")");
    };
    const WeightRegularizer& regularizer = o.weight_regularizer()[l];
    const double relaxation = o.relaxation_of(l);
    const double momentum = o.momentum_of(l);
    const double decay = o.weight_decay_of(l, /*classes=*/true);
    check("relaxation (times lr)", relaxation,
          relaxation >= 0 && (regularizer.quadratic() ? relaxation < 2 : relaxation <= 1),
          regularizer.quadratic() ? "in [0, 2)" : "in [0, 1] with a regulariser that is not a squared norm");
    check("weight_decay (times lr)", decay, decay >= 0 && decay < 1, "in [0, 1)");
    check("row_blocks", static_cast<double>(o.row_blocks()[l]), o.row_blocks()[l] == 1 || regularizer.none(),
          "1 where it has a weight_regularizer");
    check("row_blocks", static_cast<double>(o.row_blocks()[l]),
          o.row_blocks()[l] == 1 || mlp_->mlp.skips.empty(), "1 in a model with a Residual");
    check("row_blocks", static_cast<double>(o.row_blocks()[l]), o.row_blocks()[l] == 1 || !mlp_->normalizes(),
          "1 in a model with a LayerNorm");
    moves_start = moves_start || momentum > 0 || decay > 0;
  }
  TORCH_CHECK_VALUE(!moves_start || !o.persistent(), mlp_->name,
                    ": persistent variables go with no momentum and no weight_decay");
  TORCH_CHECK_VALUE(!mlp_->drops() || !o.persistent(), mlp_->name,
                    ": persistent variables go with no Dropout in train mode; call model.eval()");
}

// One sweep, committed only when all of it has succeeded.
void RelaxedBCD::sweep(bool batch) {
  Data& d = *data_;
  RelaxedRows& rows = batch ? d.batch : d.bound;
  const bool persistent = d.options.persistent() && !batch;
  const bool restored = persistent && !rows.saved.empty();
  if (!d.standardize) {
    d.standardize =
        poorly_scaled(rows.x, mlp_->committed.front().bias.defined(), rows.totals(mlp_->sum_over_ranks));
  }
  rows.input_gram.enabled = !batch;
  set_start(batch);
  d.last = &rows;
  struct Ended {
    Data& data;
    bool complete = false;
    ~Ended() { data.last = complete ? data.last : nullptr; }
  } ended{d};
  d.swept = d.options;
  const RelaxedProblem problem = d.problem(*mlp_, d.swept);
  bool rescaled = false;
  rows.masks = drawn_masks(mlp_->mlp.activations, rows.v);
  const std::vector<StateMap> state_maps = problem.state_maps(d.start(*mlp_), rows.masks);
  if (restored) {
    for (size_t l = 0; l < mlp_->depth(); ++l) {
      if (problem.normalized(l)) {  // whose scale and shift may be others by now
        state_maps[l].out(rows.saved.u[l], rows.v[l]);
      } else {
        rows.v[l].copy_(rows.saved.v[l]);
      }
    }
    products_out(rows.x, rows.v, d.start(*mlp_), rows.p);
    for (size_t l = 0; l < mlp_->depth(); ++l) {
      add_skipped_(mlp_->mlp.skips, l, rows.x, rows.saved.u, rows.v, rows.p[l]);
      at::sub_out(rows.slack[l], rows.saved.u[l], rows.p[l]);
    }
    rows.spreads = spreads_of(problem, rows, rows.saved.u, state_maps);
  } else {
    forward_out(rows.x, d.start(*mlp_), state_maps, mlp_->mlp.skips, rows.p, rows.v);
    rescaled = sweeps() == 0 && match_output_scale(batch);
    rows.spreads = spreads_of(problem, rows, rows.p, state_maps);
    rows.penalties = relaxed_penalties(problem, d.start(*mlp_), rows);
  }
  d.report = sweep_relaxed(
      {{problem, d.start(*mlp_), mlp_->next, rows, observer_}, restored, *d.standardize, d.progress});
  mlp_->check_next();
  if (d.options.guard()) {
    guard(!restored && !d.start_apart);
  }
  if (persistent) {
    save_states();
  }
  commit_recorded(persistent, /*step_to_go_on_with=*/!rescaled);
  ended.complete = true;
}

void RelaxedBCD::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight,
                      const ScratchDir& scratch) {
  const Call call = mlp_->call(Call::Kind::kChange);
  std::unique_ptr<ScratchRun> run;
  std::optional<ScratchMemory::Use> in_files;
  Data::Given given;
  const auto own = [&] {
    sync();
    run = open_run(scratch);
    in_files.emplace(run ? run->memory() : nullptr);
    given = data_->checked(*this, x, y, sample_weight, run ? run->storage() : RowStorage());
  };
  begin("bind", own, {}, given.sums.all());
  RelaxedRows rows = RelaxedRows::allocate(given.data.x.size(0), mlp_->committed);
  static_cast<RelaxedData&>(rows) = given.measured(*mlp_);
  data_->standardize = run ? begin_run(*run, rows) : std::nullopt;
  data_->bound = std::move(rows);
  keep_in(std::move(run));
  data_->last = nullptr;
  moved();
}

const RelaxedReport& RelaxedBCD::step() {
  const Call call = mlp_->call(Call::Kind::kStep);
  begin("bound", [&] {
    sync();
    TORCH_CHECK_VALUE(bound(), mlp_->name, ": step() without data needs bound data; call bind(x, y) first");
    if (data_->bound.weights.defined()) {
      data_->check_takes_weights(mlp_->name);
    }
  });
  sweep(/*batch=*/false);
  return data_->report;
}

const RelaxedReport& RelaxedBCD::step(const at::Tensor& x, const at::Tensor& y,
                                      const at::Tensor& sample_weight) {
  const Call call = mlp_->call(Call::Kind::kStep);
  Data::Given given;
  const auto own = [&] {
    sync();
    TORCH_CHECK_VALUE(!data_->options.persistent(), mlp_->name,
                      ": persistent variables need bound data; call bind(x, y) and step()");
    given = data_->checked(*this, x, y, sample_weight);
  };
  begin("batch", own, {}, given.sums.all());
  RelaxedData data = given.measured(*mlp_);  // before the last batch's rows go
  static_cast<RelaxedData&>(data_->resize_batch(data.x.size(0), mlp_->committed)) = std::move(data);
  sweep(/*batch=*/true);
  return data_->report;
}

RelaxedBCD::Variables RelaxedBCD::variables() const {
  const Call call = mlp_->call(Call::Kind::kLook);
  const Data& d = *data_;
  TORCH_CHECK_VALUE(d.last != nullptr, mlp_->name,
                    ": no sweep yet whose variables are still there; call step first");
  const RelaxedRows& rows = *d.last;
  const bool sweeping = mlp_->within_sweep();  // asked by an observer
  const RelaxedProgress progress = sweeping ? d.progress : RelaxedProgress{0, 0};
  Variables result;
  result.V = {rows.x.clone()};
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    result.U.push_back(l >= progress.first_moved ? at::add(rows.p[l], rows.slack[l]) : rows.p[l].clone());
    result.V.push_back(rows.v[l].clone());
    // After a sweep `next` holds the weights before it, or what the guard refused: the sweep's own are the
    // committed ones.
    const AffineMap& map = !sweeping                     ? mlp_->committed[l]
                           : l >= progress.first_updated ? mlp_->next[l]
                                                         : d.start(*mlp_)[l];
    result.W.push_back(map.weight.clone());
    result.b.push_back(map.bias.defined() ? map.bias.clone() : map.bias);
  }
  return result;
}

ObjectiveTerms RelaxedBCD::last_sweep_terms(bool) { return objective_terms(); }

ObjectiveTerms RelaxedBCD::objective_terms() {
  const Call call = mlp_->call(Call::Kind::kLook);
  const Variables at = variables();
  std::vector<AffineMap> maps;
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    maps.push_back({at.W[l], at.b[l]});
  }
  return torchbcd::objective_terms(data_->problem(*mlp_, data_->swept), maps, *data_->last, at.U,
                                   {at.V.begin() + 1, at.V.end()});
}

SavedState RelaxedBCD::state() const {
  const Call call = mlp_->call(Call::Kind::kLook);
  refuse_state_in_folder();
  SavedState state;
  state.numbers["sweeps"] = {static_cast<double>(sweeps())};
  Data::Course{data_->standardize, data_->velocity}.save(state);
  if (!bound()) {
    return state;
  }
  const RelaxedRows& rows = data_->bound;
  save_data(state, rows.x, rows.y, rows.weights.weight);
  state.numbers["classes"] = {rows.classes ? 1.0 : 0.0};
  if (!rows.saved.empty()) {
    state.tensors["U"] = clone_all(rows.saved.u);
    state.tensors["V"] = clone_all(rows.saved.v);
    state.numbers["penalties"] = rows.penalties;
  }
  return state;
}

void RelaxedBCD::load_state(const SavedState& state) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const StateReader reader(mlp_->name, state);
  const int64_t sweeps = reader.count("sweeps");
  Data::Course course = Data::Course::read(reader, mlp_->committed);
  RelaxedRows rows;
  if (reader.has("x")) {
    const at::Tensor x = mlp_->layer_inputs("state['x']", reader.tensor("x"));
    const at::Tensor y = mlp_->encoded_targets("state['y']", reader.tensor("y"), x.size(0));
    const at::Tensor weight = reader.has("row_weight") ? reader.sample_weight() : at::Tensor();
    Data::Given given(*mlp_, x, y, weight.defined() ? mlp_->row_weight(weight, x.size(0)) : weight,
                      reader.number("classes") != 0);
    if (has_other_ranks()) {
      sum_over_ranks(mlp_->sum_over_ranks, x.device(), given.sums.all());
    }
    rows = RelaxedRows::allocate(x.size(0), mlp_->committed);
    static_cast<RelaxedData&>(rows) = given.measured(*mlp_);
    if (reader.has("U")) {
      rows.saved = RelaxedStates::allocate(x.size(0), mlp_->committed);
      reader.copy("U", rows.saved.u);
      reader.copy("V", rows.saved.v);
      rows.penalties = reader.numbers("penalties", mlp_->depth());
    }
  }
  data_->velocity = std::move(course.velocity);
  data_->standardize = course.standardize;
  data_->bound = std::move(rows);
  keep_in(nullptr);
  data_->last = nullptr;
  loaded(sweeps);
}

}  // namespace torchbcd
