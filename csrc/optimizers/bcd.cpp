#include "torchbcd/bcd.h"

#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "blocks/joint_states.h"
#include "blocks/weight_terms.h"
#include "linalg/reductions.h"
#include "optimizers/bcd_data.h"
#include "optimizers/found_modules.h"
#include "optimizers/option_table.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"
#include "optimizers/weight_constraints.h"
#include "sweeps/bcd_order.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

const OptionTable& bcd_options() {
  using Options = BCDOptions;
  static const OptionTable table(
      "torchbcd.BCD", std::make_shared<Options>(),
      {
          TORCHBCD_OPTION(gamma, ranges::kPositive, "penalty of V_i = sigma_i(U_i)"),
          TORCHBCD_OPTION(rho, ranges::kPositive, "penalty of U_i = V_{i-1} W_i^T + 1 b_i^T; None: as gamma"),
          TORCHBCD_OPTION(alpha, ranges::kPositive, "proximal weight of the states"),
          TORCHBCD_OPTION(alpha_weight, ranges::kPositive, "proximal weight of W and b; None: as alpha"),
          TORCHBCD_OPTION(weight_regularizer, ranges::kAny, "r_i(W_i)"),
          TORCHBCD_OPTION(state_regularizer, ranges::kAny, "s_i(V_i)"),
          TORCHBCD_OPTION(splitting, ranges::kTwoOrThree,
                          "3 for Algorithm 2 (V, U, W), 2 for Algorithm 1 (V, W)", {}, /*at_start=*/false,
                          /*of_scheme=*/true),
          TORCHBCD_OPTION(regularize_bias, ranges::kAny, "whether r_i covers the bias, too"),
          TORCHBCD_OPTION(order, ranges::kAny, "of the blocks of a sweep",
                          {"paper", "states_first", "layer_parallel", "joint"}, /*at_start=*/false,
                          /*of_scheme=*/false, "a list of blocks"),
          TORCHBCD_OPTION(inner_sweeps, ranges::kAtLeastOne, "updates of V and U before the W that follows"),
          TORCHBCD_OPTION(loss_weight, ranges::kPositive, "of the loss term"),
          TORCHBCD_OPTION(loss_scaling, ranges::kAny, "of the loss term", {"sum", "mean", "paper"}),
      });
  return table;
}

}  // namespace

BCD::BCD(const torch::nn::Sequential& model, const BCDOptions& options) : BCD(read_mlp(model), options) {
  mlp_->reread = reader_of(model);
}

BCD::BCD(Mlp mlp, const BCDOptions& options)
    : SplitOptimizer("torchbcd.BCD", std::move(mlp), options.loss()), data_(std::make_unique<Data>()) {
  data_->options = options;
  bcd_options().spread(&data_->options, mlp_->depth());
  check_options();
}

BCD::BCD(BCD&&) noexcept = default;
BCD::~BCD() = default;

BCDOptions& BCD::options() { return data_->options; }
const OptionTable& BCD::table() { return bcd_options(); }
const OptionTable& BCD::option_table() const { return table(); }
void* BCD::option_values() const { return &data_->options; }
bool BCD::bound() const { return data_->bound.defined(); }

void BCD::check_options_together() const {
  if (has_other_ranks()) {
    check_takes_ranks();
  }
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    const bool plain = data_->options.weight_regularizer()[l].of_entries();
    TORCH_CHECK_VALUE(plain || has_least_squares(l), mlp_->name,
                      ": splitting 2 needs weight_regularizers that are sums over entries, without norms and "
                      "signs of inputs, in layers with an activation (layer ",
                      l + 1, " has another one)");
    TORCH_CHECK_VALUE(
        plain || !data_->options.regularize_bias(), mlp_->name,
        ": regularize_bias needs weight_regularizers that are sums over entries, which a bias is "
        "one more of (layer ",
        l + 1, " has another one)");
  }
  if (data_->options.splitting() == 2) {
    mlp_->refuse_skips("splitting 2");
  }
  TORCH_CHECK_VALUE(
      data_->options.loss_scaling() != "paper" || !mlp_->loss.several(), mlp_->name,
      ": loss_weight 'paper' is of one loss; with several take 'mean', and weights of the parts");
  blocks_in_order(data_->options, mlp_->depth());
  check_state_regularizers(*mlp_, data_->options.state_regularizer(), data_->options.splitting());
  if (data_->options.order() == "joint") {
    check_joint();
  }
}

// Whether the W block of a layer is (regularised) least squares: no activation is inside it.
bool BCD::has_least_squares(size_t l) const {
  return data_->options.splitting() == 3 || functors::is_identity(mlp_->activations[l]);
}

// The block of all V is nonlinear least squares.
void BCD::check_joint() const {
  TORCH_CHECK_VALUE(mlp_->loss.squared(), mlp_->name, ": order 'joint' needs the loss 'squared' (got '",
                    mlp_->loss.text, "')");
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    std::visit(
        [&](const auto& f) {
          TORCH_CHECK_VALUE(is_smooth(f), mlp_->name, ": order 'joint' needs smooth activations (got '",
                            f.name, "' in layer ", l + 1, ")");
        },
        mlp_->activations[l]);
    TORCH_CHECK_VALUE(data_->options.state_regularizer()[l].quadratic(), mlp_->name,
                      ": order 'joint' needs a state_regularizer that is a squared norm or none (layer ",
                      l + 1, " has a 1-norm or bounds)");
  }
}

void BCD::parameters_changed() {
  data_->bound.residuals = Residuals::kStale;
  data_->batch.residuals = Residuals::kStale;
}

void BCD::check_takes_ranks() const {
  TORCH_CHECK_VALUE(data_->options.order() != "joint", mlp_->name,
                    ": a process_group needs another order than 'joint'");
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    TORCH_CHECK_VALUE(has_least_squares(l), mlp_->name,
                      ": a process_group needs splitting=3, or no activations, where W blocks are least "
                      "squares (got splitting 2 with '",
                      mlp_->mlp.activations[l].text(), "' in layer ", l + 1, ")");
  }
  check_same_in_processes(mlp_->name, "weight_regularizer", data_->options.weight_regularizer());
  check_same_in_processes(mlp_->name, "state_regularizer", data_->options.state_regularizer());
}

void BCD::unbind() {
  data_->bound = {};
  keep_in(nullptr);
  data_->stepped = Data::Stepped::kNothing;
  data_->has_before = false;
}

void BCD::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight,
               const std::vector<at::Tensor>& u, const std::vector<at::Tensor>& v,
               const ScratchDir& scratch) {
  const Call call = mlp_->call(Call::Kind::kChange);
  BcdRows rows;
  std::unique_ptr<ScratchRun> run;
  std::optional<ScratchMemory::Use> in_files;
  std::vector<at::Tensor> outputs, states;
  double population = 0;
  const auto own = [&] {
    sync();
    run = open_run(scratch);
    in_files.emplace(run ? run->memory() : nullptr);
    const RowStorage storage = run ? run->storage() : RowStorage();
    rows.x = mlp_->inputs("x", x, storage);
    rows.y = mlp_->targets("y", y, rows.rows(), storage);
    rows.row_weight = mlp_->row_weight(sample_weight, rows.rows(), storage);
    rows.current =
        BcdVariables::allocate(rows.rows(), mlp_->committed, storage, run ? run->current_set() : "");
    rows.next = BcdVariables::allocate(rows.rows(), mlp_->committed, storage, run ? run->other_set() : "");
    TORCH_CHECK_VALUE(u.empty() || data_->options.splitting() == 3, mlp_->name,
                      ": u is a variable with splitting 3 alone (got splitting 2)");
    outputs = mlp_->states("u", u, rows.rows(), /*with_last=*/true, storage_in(rows.next.u));
    states = mlp_->states("v", v, rows.rows(), /*with_last=*/true, storage_in(rows.next.v));
    for (size_t l = 0; l < states.size(); ++l) {
      const WeightRegularizer& s = data_->options.state_regularizer()[l];
      TORCH_CHECK_VALUE(std::isfinite(regularizer_value(s, states[l])), mlp_->name, ": v of layer ", l + 1,
                        " must lie within the bounds of its state_regularizer, ", s.entries.low, " and ",
                        s.entries.high, ", or where one's own is finite");
    }
    population = static_cast<double>(rows.rows());
  };
  begin("bind", own, {}, {&population});
  check_any_rows(population);
  rows.population = static_cast<int64_t>(population);
  rows.cache.enabled = true;
  if (run && run->resumed()) {
    const SavedState recorded = run->recorded();
    const StateReader reader(mlp_->name, recorded);
    TORCH_CHECK_VALUE(reader.count("splitting") == data_->options.splitting(), mlp_->name,
                      ": the run in scratch_dir must have this splitting (", reader.count("splitting"),
                      " there, ", data_->options.splitting(), " here)");
    take_up(reader, rows.rows(), rows.row_weight.size(0));
    rows.residuals = static_cast<Residuals>(reader.count("residuals"));
  } else {
    forward_pass(data_->problem(*mlp_, data_->options), mlp_->committed, rows, outputs, states);
    if (run) {
      run->begin(data_->record(mlp_->committed, rows, rows.residuals, sweeps()), description());
    }
  }
  data_->recorded_stale = rows.residuals == Residuals::kStale;
  data_->bound = std::move(rows);
  keep_in(std::move(run));
  data_->stepped = Data::Stepped::kBound;
  data_->has_before = false;
  moved();
}

// One sweep, committed only when all of it has succeeded.
void BCD::sweep(bool batch) {
  BcdRows& rows = batch ? data_->batch : data_->bound;
  data_->has_before = false;
  const BcdProblem problem = data_->problem(*mlp_, data_->options);
  record_stale(rows);
  const BlockObserver observer = batch ? observer_ : observer_of_run();
  const Residuals residuals = sweep_bcd({problem, mlp_->committed, mlp_->next, rows, observer});
  // Every variable reaches a weight of the same sweep, so the weights tell whether all is finite; only where
  // they are not is the first bad block, in the order of the sweep, looked for.
  if (!all_finite(tensors_of(mlp_->next))) {
    for (size_t l = mlp_->depth(); l-- > 0;) {
      for (const auto& [block, value] :
           {std::pair{"V", rows.next.v[l]}, std::pair{"U", rows.next.u[l]},
            std::pair{"map", mlp_->next[l].slope}, std::pair{"W", mlp_->next[l].weight},
            std::pair{"W", mlp_->next[l].bias}}) {
        TORCH_CHECK_LINALG(all_finite(value), block_name(mlp_->name, mlp_->depth(), block, l),
                           ": the update is not finite");
      }
    }
  }
  commit_recorded(batch, residuals);
  data_->swept = data_->options;
  std::swap(rows.current, rows.next);
  if (batch) {
    std::swap(data_->storage_current, data_->storage_next);
  }
  rows.residuals = residuals;
  data_->has_before = true;
}

void BCD::step() {
  const Call call = mlp_->call(Call::Kind::kStep);
  begin("bound", [&] {
    sync();
    TORCH_CHECK_VALUE(bound(), mlp_->name, ": step() without data needs bound data; call bind(x, y) first");
  });
  sweep(/*batch=*/false);
  data_->stepped = Data::Stepped::kBound;
}

void BCD::step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const Call call = mlp_->call(Call::Kind::kStep);
  at::Tensor inputs, targets, row_weight;
  double population = 0;
  const auto own = [&] {
    sync();
    inputs = mlp_->inputs("x", x);
    targets = mlp_->targets("y", y, inputs.size(0));
    row_weight = mlp_->row_weight(sample_weight, inputs.size(0));
    population = static_cast<double>(inputs.size(0));
  };
  begin("batch", own, {}, {&population});
  check_any_rows(population);
  moved();
  BcdRows& batch = data_->batch;
  data_->resize_batch(inputs.size(0), mlp_->committed);
  batch.x = inputs;
  batch.y = targets;
  batch.row_weight = row_weight;
  batch.population = static_cast<int64_t>(population);
  forward_pass(data_->problem(*mlp_, data_->options), mlp_->committed, batch);
  sweep(/*batch=*/true);
  data_->bound.residuals = Residuals::kStale;
  data_->stepped = Data::Stepped::kBatch;
}

void BCD::step_rows(const at::Tensor& index, const at::Tensor& x, const at::Tensor& y) {
  const Call call = mlp_->call(Call::Kind::kStep);
  BcdRows& bound = data_->bound;
  BcdRows& batch = data_->batch;
  at::Tensor rows;
  begin("rows", [&] {
    sync();
    TORCH_CHECK_VALUE(!run_, mlp_->name,
                      ": step(index=...) needs data bound in memory: it changes rows of the point in place, "
                      "which a process killed in the middle would leave between two sweeps");
    data_->check_index(mlp_->name, index);
    rows = index.to(bound.x.device(), at::kLong);
    if (x.defined()) {
      data_->check_rows(*mlp_, rows, x, y);
    }
  });
  moved();
  data_->resize_batch(rows.size(0), mlp_->committed);
  batch.x = at::index_select(bound.x, 0, rows);
  batch.y = at::index_select(bound.y, 0, rows);
  batch.row_weight =
      bound.row_weight.size(0) == 1 ? bound.row_weight : at::index_select(bound.row_weight, 0, rows);
  batch.population = bound.population;
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    at::index_select_out(batch.current.u[l], bound.current.u[l], 0, rows);
    at::index_select_out(batch.current.v[l], bound.current.v[l], 0, rows);
  }
  batch.residuals = Residuals::kStale;
  sweep(/*batch=*/true);
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    bound.current.u[l].index_copy_(0, rows, batch.current.u[l]);
    bound.current.v[l].index_copy_(0, rows, batch.current.v[l]);
  }
  bound.residuals = Residuals::kStale;
  data_->stepped = Data::Stepped::kBoundRows;
}

ObjectiveTerms BCD::objective_terms() {
  const Call call = mlp_->call(Call::Kind::kLook);
  TORCH_CHECK_VALUE(data_->stepped != Data::Stepped::kNothing, mlp_->name,
                    ": no data yet; call bind(x, y) or step(x, y) first");
  sync();
  BcdRows& rows = data_->on_batch(false) ? data_->batch : data_->bound;
  const BcdProblem problem = data_->problem(*mlp_, data_->options);
  record_stale(rows);
  refresh_residuals(problem, mlp_->committed, rows);
  return torchbcd::objective_terms(problem, mlp_->committed, rows, rows.current);
}

ObjectiveTerms BCD::last_sweep_terms(bool before) {
  const Call call = mlp_->call(Call::Kind::kLook);
  BcdRows& rows = data_->on_batch(true) ? data_->batch : data_->bound;
  const BcdProblem problem = data_->problem(*mlp_, data_->swept);
  if (before) {
    data_->check_before(mlp_->name);
    return torchbcd::objective_terms(problem, mlp_->next, rows, rows.next);
  }
  record_stale(rows);
  refresh_residuals(problem, mlp_->committed, rows);
  return torchbcd::objective_terms(problem, mlp_->committed, rows, rows.current);
}

BCD::Point BCD::point_at(const BCDOptions& options, bool batch, bool before) {
  BcdRows& rows = batch ? data_->batch : data_->bound;
  if (options.splitting() == 2 && !before) {
    refresh_residuals(data_->problem(*mlp_, options), mlp_->committed, rows);
  }
  const BcdVariables& at = before ? rows.next : rows.current;
  Point point{
      {}, rows.y.clone(), rows.row_weight.clone(), row_loss_weight(options, rows.population), options, {},
      {}};
  for (const Trained& trained : mlp_->trained) {
    point.trained.emplace_back(trained.weight, trained.bias, trained.slope);
  }
  for (const AffineMap& map : clone_maps(before ? mlp_->next : mlp_->committed)) {
    point.variables.W.push_back(map.weight);
    point.variables.b.push_back(map.bias);
    point.slopes.push_back(map.slope);
  }
  point.variables.U = clone_all(at.u);
  point.variables.V = clone_all(at.v);
  point.variables.V.insert(point.variables.V.begin(), rows.x.clone());
  return point;
}

BCD::Point BCD::point() {
  const Call call = mlp_->call(Call::Kind::kLook);
  TORCH_CHECK_VALUE(data_->stepped != Data::Stepped::kNothing, mlp_->name,
                    ": no data yet; call bind(x, y) or step(x, y) first");
  sync();
  return point_at(data_->options, data_->on_batch(false), /*before=*/false);
}

BCD::Point BCD::sweep_point(const SweepId& sweep, bool before) {
  const Call call = mlp_->call(Call::Kind::kLook);
  check_current(sweep);
  if (before) {
    data_->check_before(mlp_->name);
  }
  return point_at(data_->swept, data_->on_batch(true), before);
}

BCD::Variables BCD::variables() { return point().variables; }

SavedState BCD::state() const {
  const Call call = mlp_->call(Call::Kind::kLook);
  SavedState state;
  state.numbers["splitting"] = {static_cast<double>(data_->options.splitting())};
  state.numbers["sweeps"] = {static_cast<double>(sweeps())};
  if (!bound()) {
    return state;
  }
  refuse_state_in_folder();
  const BcdRows& rows = data_->bound;
  save_data(state, rows.x, rows.y, rows.row_weight);
  state.tensors["U"] = clone_all(rows.current.u);
  state.tensors["V"] = clone_all(rows.current.v);
  // The first layer's residual is recomputed from the data, to the same bits, once it has been; after a
  // forward pass it is zero. The others, which came out of the solves, would not be the same.
  if (rows.residuals != Residuals::kStale) {
    state.tensors["residual"] = clone_all({rows.current.residual.begin() + 1, rows.current.residual.end()});
  }
  if (rows.residuals == Residuals::kCurrent) {
    state.tensors["first_residual"] = clone_all({rows.current.residual.front()});
  }
  save_maps(state, mlp_->committed);
  return state;
}

void BCD::load_state(const SavedState& state) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const StateReader reader(mlp_->name, state);
  const int64_t sweeps = reader.count("sweeps");
  TORCH_CHECK_VALUE(reader.count("splitting") == data_->options.splitting(), mlp_->name,
                    ": the state is of splitting ", reader.count("splitting"), ", the optimizer's is ",
                    data_->options.splitting());
  BcdRows rows;
  std::vector<AffineMap> committed = mlp_->committed;
  if (reader.has("x")) {
    rows.x = mlp_->layer_inputs("state['x']", reader.tensor("x"));
    rows.y = mlp_->encoded_targets("state['y']", reader.tensor("y"), rows.rows());
    rows.row_weight = mlp_->row_weight(reader.sample_weight(), rows.rows());
    rows.population = mlp_->rows_of_all_ranks(rows.rows());
    rows.current = BcdVariables::allocate(rows.rows(), committed);
    rows.next = BcdVariables::allocate(rows.rows(), committed);
    rows.cache.enabled = true;
    reader.copy("U", rows.current.u);
    reader.copy("V", rows.current.v);
    if (reader.has("residual")) {
      reader.copy("residual", {rows.current.residual.begin() + 1, rows.current.residual.end()});
      rows.residuals = Residuals::kAllButFirst;
    }
    if (reader.has("first_residual")) {
      reader.copy("first_residual", {rows.current.residual.front()});
      rows.residuals = Residuals::kCurrent;
    }
    committed = reader.maps(committed);
  }
  data_->stepped = rows.defined() ? Data::Stepped::kBound : Data::Stepped::kNothing;
  data_->bound = std::move(rows);
  keep_in(nullptr);
  data_->has_before = false;
  mlp_->committed = std::move(committed);
  loaded(sweeps);
}

}  // namespace torchbcd
