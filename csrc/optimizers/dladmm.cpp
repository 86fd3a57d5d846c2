#include "torchbcd/dladmm.h"

#include <c10/util/Exception.h>

#include <utility>

#include "linalg/reductions.h"
#include "optimizers/found_modules.h"
#include "optimizers/option_table.h"
#include "optimizers/saved_state.h"
#include "optimizers/trained_mlp.h"
#include "sweeps/dladmm.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

const OptionTable& dladmm_options() {
  using Options = DLADMMOptions;
  static const OptionTable table(
      "torchbcd.DLADMM", std::make_shared<Options>(),
      {
          TORCHBCD_OPTION(penalty, ranges::kPositive, "nu of a hidden layer, rho of the last"),
          TORCHBCD_OPTION(weight_regularizer, ranges::kAny, "Omega_l(W_l)"),
          TORCHBCD_OPTION(loss_weight, ranges::kPositive, "of the loss term"),
          TORCHBCD_OPTION(loss_scaling, ranges::kAny, "of the loss term", {"sum", "mean"}),
          TORCHBCD_OPTION(rho, ranges::kPositive, "penalty of the last layer's constraint", {}, true),
          TORCHBCD_OPTION(nu, ranges::kPositive, "penalty of the hidden layers; None: as rho", {}, true),
      });
  return table;
}

}  // namespace

struct DLADMM::Data {
  DLADMMOptions options;
  DLADMMOptions swept;  // those of the last sweep
  DladmmRows rows;
  DladmmReport report;

  DladmmProblem problem(const TrainedMlp& mlp, const DLADMMOptions& with) const {
    return {mlp.name, mlp.activations, mlp.mlp.skips, mlp.loss, mlp.trained, with, mlp.sum_over_ranks};
  }
};

DLADMM::DLADMM(const torch::nn::Sequential& model, const DLADMMOptions& options)
    : DLADMM(read_mlp(model), options) {
  mlp_->reread = reader_of(model);
}

DLADMM::DLADMM(Mlp mlp, const DLADMMOptions& options)
    : SplitOptimizer("torchbcd.DLADMM", std::move(mlp), options.loss()), data_(std::make_unique<Data>()) {
  mlp_->refuse_skips("it");
  TORCH_CHECK_VALUE(functors::is_identity(mlp_->activations.back()), mlp_->name,
                    ": the last layer must have no activation, since R is a function of z_L");
  data_->options = options;
  data_->options.penalty(options.nu().value_or(options.rho()));
  dladmm_options().spread(&data_->options, mlp_->depth());
  data_->options.penalty()[mlp_->depth() - 1] = options.rho();
  check_options();
}

DLADMM::DLADMM(DLADMM&&) noexcept = default;
DLADMM::~DLADMM() = default;

DLADMMOptions& DLADMM::options() { return data_->options; }
const OptionTable& DLADMM::table() { return dladmm_options(); }
const OptionTable& DLADMM::option_table() const { return table(); }
void* DLADMM::option_values() const { return &data_->options; }
bool DLADMM::bound() const { return data_->rows.defined(); }

void DLADMM::unbind() { data_->rows = {}; }

void DLADMM::parameters_changed() {
  if (bound()) {
    products_out(data_->rows.x, data_->rows.current.a, mlp_->committed, data_->rows.current.q);
  }
}

void DLADMM::check_bound() const {
  TORCH_CHECK_VALUE(bound(), mlp_->name, ": no data yet; call bind(x, y) first");
}

void DLADMM::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  const Call call = mlp_->call(Call::Kind::kChange);
  DladmmRows rows;
  const auto own = [&] {
    sync();
    const at::Tensor inputs = mlp_->inputs("x", x);
    const int64_t n = inputs.size(0);
    rows = DladmmRows::allocate(inputs, mlp_->targets("y", y, n), mlp_->row_weight(sample_weight, n),
                                mlp_->committed);
    rows.population = static_cast<double>(n);
  };
  begin("bind", own, {}, {&rows.population});
  check_any_rows(rows.population);
  forward_out(rows.x, mlp_->committed, state_maps_of(activations_at(mlp_->activations, mlp_->committed)), {},
              rows.current.q, rows.current.a);
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    rows.current.z[l].copy_(rows.current.q[l]);
  }
  data_->rows = std::move(rows);
  moved();
}

const DladmmReport& DLADMM::step() {
  const Call call = mlp_->call(Call::Kind::kStep);
  DladmmRows& rows = data_->rows;
  double population = 0;
  const auto own = [&] {
    check_bound();
    sync();
    population = static_cast<double>(rows.rows());
  };
  begin("bound", own, rows.theta,
        {&population});  // theta is another one where a process alone has loaded a state
  rows.population = population;
  const DladmmProblem problem = data_->problem(*mlp_, data_->options);
  DladmmReport report = sweep_dladmm({problem, mlp_->committed, mlp_->next, rows, observer_});
  end([&] {
    mlp_->check_next();
    TORCH_CHECK_LINALG(all_finite({rows.next.z.back(), rows.next.u}),
                       block_name(mlp_->name, mlp_->depth(), "z", mlp_->depth() - 1),
                       ": the update is not finite");
  });
  commit();
  data_->swept = data_->options;
  std::swap(rows.current, rows.next);
  rows.theta = report.theta;
  data_->report = std::move(report);
  return data_->report;
}

ObjectiveTerms DLADMM::objective_terms() {
  const Call call = mlp_->call(Call::Kind::kLook);
  check_bound();
  sync();
  if (data_->rows.population == 0) {  // of a state that was loaded
    data_->rows.population = static_cast<double>(mlp_->rows_of_all_ranks(data_->rows.rows()));
  }
  return torchbcd::objective_terms(data_->problem(*mlp_, data_->options), mlp_->committed, data_->rows);
}

ObjectiveTerms DLADMM::last_sweep_terms(bool) {
  const Call call = mlp_->call(Call::Kind::kLook);
  return torchbcd::objective_terms(data_->problem(*mlp_, data_->swept), mlp_->committed, data_->rows);
}

DLADMM::Variables DLADMM::variables() {
  const Call call = mlp_->call(Call::Kind::kLook);
  check_bound();
  const DladmmVariables& v = data_->rows.current;
  Variables result;
  for (const AffineMap& map : clone_maps(mlp_->parameters)) {
    result.W.push_back(map.weight);
    result.b.push_back(map.bias);
  }
  result.z = clone_all(v.z);
  result.a = clone_all(v.a);
  result.a.insert(result.a.begin(), data_->rows.x.clone());
  result.u = v.u.clone();
  return result;
}

SavedState DLADMM::state() const {
  const Call call = mlp_->call(Call::Kind::kLook);
  SavedState state;
  state.numbers["sweeps"] = {static_cast<double>(sweeps())};
  if (!bound()) {
    return state;
  }
  const DladmmRows& rows = data_->rows;
  save_data(state, rows.x, rows.y, rows.row_weight);
  state.tensors["z"] = clone_all(rows.current.z);
  state.tensors["a"] = clone_all(rows.current.a);
  state.tensors["q"] = clone_all(rows.current.q);
  state.tensors["u"] = {rows.current.u.clone()};
  save_maps(state, mlp_->committed);
  state.numbers["theta"] = rows.theta;
  return state;
}

void DLADMM::load_state(const SavedState& state) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const StateReader reader(mlp_->name, state);
  const int64_t sweeps = reader.count("sweeps");
  DladmmRows rows;
  std::vector<AffineMap> committed = mlp_->committed;
  if (reader.has("x")) {
    const at::Tensor x = mlp_->layer_inputs("state['x']", reader.tensor("x"));
    const int64_t n = x.size(0);
    rows = DladmmRows::allocate(x, mlp_->encoded_targets("state['y']", reader.tensor("y"), n),
                                mlp_->row_weight(reader.sample_weight(), n), committed);
    reader.copy("z", rows.current.z);
    reader.copy("a", rows.current.a);
    reader.copy("q", rows.current.q);
    reader.copy("u", {rows.current.u});
    rows.theta = reader.numbers("theta", mlp_->depth());
    committed = reader.maps(mlp_->committed);
  }
  data_->rows = std::move(rows);
  mlp_->committed = std::move(committed);
  loaded(sweeps);
}

}  // namespace torchbcd
