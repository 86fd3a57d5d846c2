#include "torchbcd/dlam.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "blocks/proximal_gradient.h"
#include "kernels/registry.h"
#include "linalg/reductions.h"
#include "optimizers/found_modules.h"
#include "optimizers/option_table.h"
#include "optimizers/saved_state.h"
#include "optimizers/trained_mlp.h"
#include "sweeps/dlam.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

constexpr int64_t kRefreshEvery = 50;  // sweeps after which q, updated by differences, is computed afresh

// A member of the schedule, which there is in an optimizer, and from the first member set on.
template <double EpsSchedule::* member>
OptionRef eps_member(void* options) {
  std::optional<EpsSchedule>& eps = static_cast<DLAMOptions*>(options)->eps();
  if (!eps) {
    eps.emplace();
  }
  return &((*eps).*member);
}

const OptionTable& dlam_options() {
  using Options = DLAMOptions;
  static const OptionTable table(
      "torchbcd.DLAM", std::make_shared<Options>(),
      {
          TORCHBCD_OPTION(rho, ranges::kPositive, "penalty of z_l = a_{l-1} W_l^T + 1 b_l^T"),
          TORCHBCD_OPTION(weight_regularizer, ranges::kAny, "Omega_l(W_l)"),
          {"eps_start", eps_member<&EpsSchedule::start>, ranges::kNonNegative,
           "tolerance of the first sweep"},
          {"eps_factor", eps_member<&EpsSchedule::factor>, ranges::kUnit,
           "of the tolerance, from sweep to sweep"},
          {"eps_floor", eps_member<&EpsSchedule::floor>, ranges::kNonNegative, "the least tolerance"},
          TORCHBCD_OPTION(monotone, ranges::kAny, "mDLAM (Algorithm 2) rather than DLAM (Algorithm 1)"),
          TORCHBCD_OPTION(joint, ranges::kAny, "minimise over (z_l, a_l) together"),
          TORCHBCD_OPTION(momentum, ranges::kAny, "of the extrapolations", {"none", "nesterov", "capped"}),
          TORCHBCD_OPTION(sufficient_decrease, ranges::kFraction,
                          "of theta/2 |change|^2, by which an extrapolated step must lower F"),
          TORCHBCD_OPTION(weight_damping, ranges::kNonNegative,
                          "W by eq. (1) with this proximal weight; None: by eq. (3)"),
          TORCHBCD_OPTION(output_solver, ranges::kAny, "of z_L", {"prox", "fista"}),
          TORCHBCD_OPTION(check_conditions, ranges::kAny, "measure condition (2) and its twin"),
          TORCHBCD_OPTION(loss_weight, ranges::kPositive, "of the loss term"),
          TORCHBCD_OPTION(loss_scaling, ranges::kAny, "of the loss term", {"sum", "mean"}),
      });
  return table;
}

}  // namespace

struct DLAM::Data {
  DLAMOptions options;
  DLAMOptions swept;                // those of the last sweep
  std::vector<AffineMap> previous;  // the parameters of the sweep before the committed ones
  DlamRows bound;
  DlamRows batch;
  bool at_batch = false;  // whether the point that questions are about is the last mini-batch
  int64_t sweeps_since_bind = 0;
  DlamReport report;

  DlamProblem problem(const TrainedMlp& mlp, const DLAMOptions& with) const {
    return {mlp.name, mlp.activations, mlp.mlp.skips, mlp.loss, mlp.trained, with, mlp.sum_over_ranks};
  }
  // What a sweep over the bound rows starts from, beside the weights: not the same in every process where one
  // alone has loaded a state.
  std::vector<double> state() const {
    std::vector<double> numbers = {static_cast<double>(sweeps_since_bind), bound.eps, bound.nesterov};
    for (const std::vector<double>& more : {bound.theta, bound.tau}) {
      numbers.insert(numbers.end(), more.begin(), more.end());
    }
    return numbers;
  }
  DlamRows& point(const char* name) {
    TORCH_CHECK_VALUE(at_batch || bound.defined(), name,
                      ": no data yet; call bind(x, y) or step(x, y) first");
    return at_batch ? batch : bound;
  }
};

DLAM::DLAM(const torch::nn::Sequential& model, const DLAMOptions& options) : DLAM(read_mlp(model), options) {
  mlp_->reread = reader_of(model);
}

DLAM::DLAM(Mlp mlp, const DLAMOptions& options)
    : SplitOptimizer("torchbcd.DLAM", std::move(mlp), options.loss()), data_(std::make_unique<Data>()) {
  const Call call = mlp_->call(Call::Kind::kChange);
  mlp_->refuse_skips("it");
  TORCH_CHECK_VALUE(!mlp_->has_slopes(), mlp_->name,
                    ": the slope of a PReLU is in no term of F, only in its constraints, and no block would "
                    "find one; freeze it, or train by another optimizer");
  for (size_t l = 0; l + 1 < mlp_->depth(); ++l) {
    check_monotone(("torchbcd.DLAM: layer " + std::to_string(l + 1)).c_str(), mlp_->activations[l]);
  }
  TORCH_CHECK_VALUE(functors::is_identity(mlp_->activations.back()), mlp_->name,
                    ": the last layer must have no activation, since R is a function of z_L");
  data_->options = options;
  if (!options.eps()) {
    data_->options.eps(options.joint() ? EpsSchedule(0.003) : EpsSchedule());
  }
  dlam_options().spread(&data_->options, mlp_->depth());
  check_options();
  data_->previous = clone_maps(mlp_->committed);
}

DLAM::DLAM(DLAM&&) noexcept = default;
DLAM::~DLAM() = default;

DLAMOptions& DLAM::options() { return data_->options; }
const OptionTable& DLAM::table() { return dlam_options(); }
const OptionTable& DLAM::option_table() const { return table(); }
void* DLAM::option_values() const { return &data_->options; }
bool DLAM::bound() const { return data_->bound.defined(); }
int64_t DLAM::sweeps_since_bind() const { return data_->sweeps_since_bind; }
double DLAM::eps() const { return data_->options.eps().value()(data_->sweeps_since_bind); }

void DLAM::check_options_together() const {
  TORCH_CHECK_VALUE(data_->options.output_solver() != "fista" || has_lipschitz_gradient(mlp_->loss),
                    mlp_->name,
                    ": output_solver 'fista' needs a loss with a Lipschitz gradient: squared, huber, "
                    "logistic, binary_cross_entropy or cross_entropy");
  const double eps = this->eps();
  TORCH_CHECK_VALUE(std::isfinite(eps) && (eps > 0 || (eps == 0 && data_->options.joint())), mlp_->name,
                    ": eps must be a finite positive number, or 0 with joint=True (got ", eps, ")");
}

// q is that of the parameters, and the extrapolations lose their past with it.
void DLAM::parameters_changed() {
  copy_maps(mlp_->committed, data_->previous);
  for (DlamRows* rows : {&data_->bound, &data_->batch}) {
    if (rows->defined()) {
      refresh_products(mlp_->committed, *rows);
      rows->has_previous = false;
    }
  }
}

void DLAM::unbind() {
  data_->bound = {};
  data_->batch = {};
  data_->at_batch = false;
  data_->sweeps_since_bind = 0;
}

void DLAM::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight,
                const std::vector<at::Tensor>& z, const std::vector<at::Tensor>& a) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const int64_t before = std::exchange(data_->sweeps_since_bind, 0);
  DlamRows rows;
  const auto own = [&] {
    sync();
    rows = start(x, y, sample_weight, z, a);
  };
  try {
    begin("bind", own, {}, {&rows.population});
    check_any_rows(rows.population);
  } catch (...) {
    data_->sweeps_since_bind = before;
    throw;
  }
  data_->bound = std::move(rows);
  data_->at_batch = false;
  moved();
}

// Rows with the z and a that are given, or those of a forward pass, where F is R plus Omega for every eps.
DlamRows DLAM::start(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight,
                     const std::vector<at::Tensor>& z, const std::vector<at::Tensor>& a) const {
  const at::Tensor inputs = mlp_->inputs("x", x);
  const int64_t n = inputs.size(0);
  DlamRows rows = DlamRows::allocate(inputs, mlp_->targets("y", y, n), mlp_->row_weight(sample_weight, n),
                                     mlp_->committed);
  rows.population = static_cast<double>(n);
  rows.eps = eps();
  start_from(data_->problem(*mlp_, data_->options), mlp_->committed, mlp_->states("z", z, n),
             mlp_->states("a", a, n, /*with_last=*/false), rows);
  return rows;
}

const DlamReport& DLAM::step() {
  const Call call = mlp_->call(Call::Kind::kStep);
  double population = 0;
  double without_previous = 0;  // processes, in one of which alone weights may have been changed and set back
  const auto own = [&] {
    sync();
    TORCH_CHECK_VALUE(bound(), mlp_->name, ": step() without data needs bound data; call bind(x, y) first");
    population = static_cast<double>(data_->bound.rows());
    without_previous = data_->bound.has_previous ? 0 : 1;
  };
  begin("bound", own, data_->state(), {&population, &without_previous});
  data_->bound.population = population;
  data_->bound.has_previous = without_previous == 0;
  sweep(data_->bound);
  data_->at_batch = false;
  ++data_->sweeps_since_bind;
  return data_->report;
}

const DlamReport& DLAM::step(const at::Tensor& x, const at::Tensor& y, std::optional<int64_t> sweeps,
                             const at::Tensor& sample_weight) {
  const Call call = mlp_->call(Call::Kind::kStep);
  const int64_t count = sweeps.value_or(static_cast<int64_t>(mlp_->depth()) + 1);
  DlamRows rows;
  const auto own = [&] {
    sync();
    TORCH_CHECK_VALUE(count >= 1, mlp_->name, ": sweeps must be at least 1 (got ", count, ")");
    rows = start(x, y, sample_weight);
  };
  begin(c10::str("batch, ", count, " sweeps"), own, {}, {&rows.population});
  check_any_rows(rows.population);
  const int64_t before = SplitOptimizer::sweeps();
  const auto tell_bound = [&] {  // that the weights have moved
    if (bound() && SplitOptimizer::sweeps() > before) {
      refresh_products(mlp_->committed, data_->bound);
      data_->bound.has_previous = false;
    }
  };
  try {
    for (int64_t k = 0; k < count; ++k) {
      sweep(rows);
    }
  } catch (...) {  // of a sweep; those before it stand
    tell_bound();
    throw;
  }
  data_->batch = std::move(rows);
  data_->at_batch = true;
  tell_bound();
  return data_->report;
}

// One sweep over `rows`, committed only when all of it has succeeded.
void DLAM::sweep(DlamRows& rows) {
  const double eps = this->eps();
  if (rows.since_refresh >= kRefreshEvery) {
    refresh_products(mlp_->committed, rows);
    if (rows.has_previous) {  // or the extrapolation takes the old one's error for a movement, ever after
      affine_out(rows.x, data_->previous[0], rows.q_previous);
    }
  }
  const bool shrinks = eps < rows.eps;
  if (shrinks && rows.feasible.z.empty()) {
    rows.feasible = DlamVariables::allocate(rows.rows(), mlp_->committed);
  }
  const double next_nesterov = (1 + std::sqrt(1 + 4 * rows.nesterov * rows.nesterov)) / 2;
  // Algorithm 1 starts from omega^0 = -1, which eq. (17) takes for 0.
  const double omega = data_->options.momentum() == "none" || !rows.has_previous
                           ? 0
                           : std::max(0.0, (rows.nesterov - 1) / next_nesterov);
  const DlamProblem problem = data_->problem(*mlp_, data_->options);
  DlamReport report =
      sweep_dlam({{problem, mlp_->committed, mlp_->next, rows, observer_}, data_->previous, eps, omega});
  end([&] {
    mlp_->check_next();
    TORCH_CHECK_LINALG(all_finite(rows.next.z.back()),
                       block_name(mlp_->name, mlp_->depth(), "z", mlp_->depth() - 1),
                       ": the update is not finite");
  });
  commit();
  data_->swept = data_->options;
  std::swap(data_->previous, mlp_->next);  // commit left the old parameters in `next`
  std::swap(rows.q_previous, rows.current.q[0]);
  for (size_t l = 0; l + 1 < mlp_->depth(); ++l) {
    std::swap(rows.a_previous[l], shrinks ? rows.feasible.a[l] : rows.current.a[l]);
  }
  std::swap(rows.current, rows.next);
  rows.has_previous = true;
  rows.nesterov = next_nesterov;
  rows.eps = eps;
  rows.theta = report.theta;
  rows.tau = report.tau;
  ++rows.since_refresh;
  data_->report = std::move(report);
}

ObjectiveTerms DLAM::objective_terms() {
  const Call call = mlp_->call(Call::Kind::kLook);
  DlamRows& rows = data_->point(mlp_->name);
  sync();
  if (rows.population == 0) {  // of a state that was loaded
    rows.population = static_cast<double>(mlp_->rows_of_all_ranks(rows.rows()));
  }
  return torchbcd::objective_terms(data_->problem(*mlp_, data_->options), mlp_->committed, rows);
}

ObjectiveTerms DLAM::last_sweep_terms(bool) {
  const Call call = mlp_->call(Call::Kind::kLook);
  return torchbcd::objective_terms(data_->problem(*mlp_, data_->swept), mlp_->committed,
                                   data_->point(mlp_->name));
}

double DLAM::gap() {
  const Call call = mlp_->call(Call::Kind::kLook);
  const std::vector<double> all = gaps(data_->problem(*mlp_, data_->options), data_->point(mlp_->name));
  const double here =
      all.empty() ? -std::numeric_limits<double>::infinity() : *std::max_element(all.begin(), all.end());
  return Totals(mlp_->sum_over_ranks, mlp_->committed[0].weight.device()).largest(here);
}

double DLAM::sweep_gap(const SweepId& sweep) {
  check_current(sweep);
  return gap();
}

DLAM::Variables DLAM::variables() {
  const Call call = mlp_->call(Call::Kind::kLook);
  const DlamRows& rows = data_->point(mlp_->name);
  Variables result;
  for (const AffineMap& map : clone_maps(mlp_->parameters)) {
    result.W.push_back(map.weight);
    result.b.push_back(map.bias);
  }
  result.z = clone_all(rows.current.z);
  result.a = clone_all(rows.current.a);
  result.a.insert(result.a.begin(), rows.x.clone());
  return result;
}

SavedState DLAM::state() const {
  const Call call = mlp_->call(Call::Kind::kLook);
  SavedState state;
  state.numbers["sweeps"] = {static_cast<double>(sweeps())};
  state.numbers["sweeps_since_bind"] = {static_cast<double>(data_->sweeps_since_bind)};
  if (!bound()) {
    return state;
  }
  const DlamRows& rows = data_->bound;
  save_data(state, rows.x, rows.y, rows.row_weight);
  state.tensors["z"] = clone_all(rows.current.z);
  state.tensors["a"] = clone_all(rows.current.a);
  state.tensors["q"] = clone_all(rows.current.q);
  state.tensors["a_previous"] = clone_all(rows.a_previous);
  state.tensors["q_previous"] = {rows.q_previous.clone()};
  save_maps(state, mlp_->committed);
  save_maps(state, data_->previous, "_previous");
  state.numbers["theta"] = rows.theta;
  state.numbers["tau"] = rows.tau;
  state.numbers["eps"] = {rows.eps};
  state.numbers["nesterov"] = {rows.nesterov};
  state.numbers["has_previous"] = {rows.has_previous ? 1.0 : 0.0};
  state.numbers["since_refresh"] = {static_cast<double>(rows.since_refresh)};
  return state;
}

void DLAM::load_state(const SavedState& state) {
  const Call call = mlp_->call(Call::Kind::kChange);
  const StateReader reader(mlp_->name, state);
  const int64_t sweeps = reader.count("sweeps");
  const int64_t sweeps_since_bind = reader.count("sweeps_since_bind");
  DlamRows rows;
  std::vector<AffineMap> committed = mlp_->committed;
  std::vector<AffineMap> previous = data_->previous;
  if (reader.has("x")) {
    const at::Tensor x = mlp_->layer_inputs("state['x']", reader.tensor("x"));
    const int64_t n = x.size(0);
    rows = DlamRows::allocate(x, mlp_->encoded_targets("state['y']", reader.tensor("y"), n),
                              mlp_->row_weight(reader.sample_weight(), n), committed);
    reader.copy("z", rows.current.z);
    reader.copy("a", rows.current.a);
    reader.copy("q", rows.current.q);
    reader.copy("a_previous", rows.a_previous);
    reader.copy("q_previous", {rows.q_previous});
    rows.theta = reader.numbers("theta", mlp_->depth());
    rows.tau = reader.numbers("tau", mlp_->depth() - 1);
    rows.eps = reader.number("eps");
    rows.nesterov = reader.number("nesterov");
    rows.has_previous = reader.number("has_previous") != 0;
    rows.since_refresh = reader.count("since_refresh");
    committed = reader.maps(mlp_->committed);
    previous = reader.maps(mlp_->committed, "_previous");
  }
  data_->bound = std::move(rows);
  data_->batch = {};
  data_->at_batch = false;
  data_->previous = std::move(previous);
  data_->sweeps_since_bind = sweeps_since_bind;
  mlp_->committed = std::move(committed);
  loaded(sweeps);
}

}  // namespace torchbcd
