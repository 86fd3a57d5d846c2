#include "torchbcd/dlam.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "api/named_option.h"
#include "api/trainer_of.h"
#include "engine/dlam.h"

namespace torchbcd {

using detail::NamedOption;

namespace {

DlamTrainer& engine(MlpTrainer& trainer) { return static_cast<DlamTrainer&>(trainer); }

}  // namespace

DLAM::DLAM(const torch::nn::Sequential& model, const DLAMOptions& options) : DLAM(read_mlp(model), options) {}

DLAM::DLAM(Mlp mlp, const DLAMOptions& options)
    : SplitOptimizer(mlp, options.loss(), options.loss_weight(), options.mean_loss(),
                     detail::trainer_of<DlamTrainer>(mlp, options.loss())),
      layers_(mlp.depth()),
      eps_(options.eps().value_or(options.joint() ? EpsSchedule(0.003) : EpsSchedule())),
      monotone_(options.monotone()),
      joint_(options.joint()),
      momentum_(static_cast<int64_t>(options.momentum())),
      weight_damping_(options.weight_damping()),
      fista_(options.output_solver() == OutputSolver::kFista),
      check_conditions_(options.check_conditions()) {
  detail::spread(layers_, &Layer::rho, options.rho(), "rho");
  detail::spread(layers_, &Layer::weight_regularizer, options.weight_regularizer(), "weight_regularizer");
  apply_options();
}

std::vector<NamedOption> DLAM::layer_options(size_t layer) {
  Layer& l = layers_[layer];
  return {{"rho", &l.rho}, {"weight_regularizer", &l.weight_regularizer}};
}

std::vector<NamedOption> DLAM::scheme_options() {
  std::vector<NamedOption> options = SplitOptimizer::scheme_options();
  options.insert(options.end(), {{"eps_start", &eps_.start},
                                 {"eps_factor", &eps_.factor},
                                 {"eps_floor", &eps_.floor},
                                 {"monotone", &monotone_},
                                 {"joint", &joint_},
                                 {"momentum", &momentum_},
                                 {"weight_damping", &weight_damping_},
                                 {"fista", &fista_},
                                 {"check_conditions", &check_conditions_},
                                 {"sweeps_since_bind", &sweeps_since_bind_}});
  return options;
}

std::vector<NamedOption> DLAM::counters() { return {{"sweeps_since_bind", &sweeps_since_bind_}}; }

void DLAM::apply_options() {
  TORCH_CHECK_VALUE(
      std::isfinite(eps_.start) && eps_.start >= 0 && eps_.factor > 0 && eps_.factor <= 1 &&
          std::isfinite(eps_.floor) && eps_.floor >= 0,
      "torchbcd.DLAM: eps must have a finite start >= 0, a factor in (0, 1] and a finite floor >= 0 ",
      "(got ", eps_.start, ", ", eps_.factor, " and ", eps_.floor, ")");
  TORCH_CHECK_VALUE(momentum_ >= 0 && momentum_ <= 2,
                    "torchbcd.DLAM: momentum must be 0 (none), 1 (nesterov) or 2 (capped) (got ", momentum_,
                    ")");
  TORCH_CHECK_VALUE(!weight_damping_ || *weight_damping_ > 0,
                    "torchbcd.DLAM: weight_damping must be > 0 (got ", *weight_damping_, ")");
  SplitOptimizer::apply_options();
  DlamTrainer& trainer = engine(this->trainer());
  trainer.set_options({monotone_, joint_, static_cast<Momentum>(momentum_), weight_damping_.value_or(0),
                       fista_ ? OutputSolver::kFista : OutputSolver::kProx, check_conditions_});
  for (size_t i = 0; i < layers_.size(); ++i) {
    trainer.set_layer_options(i, {layers_[i].rho, detail::to_functor(layers_[i].weight_regularizer)});
  }
}

void DLAM::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  apply_options();
  engine(trainer()).bind(inputs(x), y, eps_(0), sample_weight);
  sweeps_since_bind_ = 0;
}

const DlamReport& DLAM::step() {
  apply_options();
  const DlamReport& report = engine(trainer()).step(eps_(sweeps_since_bind_));
  ++sweeps_since_bind_;
  return report;
}

const DlamReport& DLAM::step(const at::Tensor& x, const at::Tensor& y, std::optional<int64_t> sweeps,
                             const at::Tensor& sample_weight) {
  apply_options();
  return engine(trainer()).step(inputs(x), y, eps_(sweeps_since_bind_),
                                sweeps.value_or(static_cast<int64_t>(layers_.size()) + 1), sample_weight);
}

double DLAM::objective() {
  apply_options();
  return engine(trainer()).objective().total();
}

double DLAM::gap() {
  const std::vector<double> gaps = engine(trainer()).gaps();
  return gaps.empty() ? -std::numeric_limits<double>::infinity()
                      : *std::max_element(gaps.begin(), gaps.end());
}

DLAM::Variables DLAM::variables() {
  TrainerState raw = engine(trainer()).variables();
  Variables variables{raw["weight"], raw["bias"], raw["z"], raw["x"]};
  variables.a.insert(variables.a.end(), raw["a"].begin(), raw["a"].end());
  return variables;
}

}  // namespace torchbcd
