#include "torchbcd/bcd.h"

#include <c10/util/Exception.h>

#include <utility>

#include "api/named_option.h"
#include "api/trainer_of.h"
#include "engine/bcd_trainer.h"

namespace torchbcd {

using detail::NamedOption;

namespace {

BcdTrainer& engine(MlpTrainer& trainer) { return static_cast<BcdTrainer&>(trainer); }

}  // namespace

BCD::BCD(const torch::nn::Sequential& model, const BCDOptions& options) : BCD(read_mlp(model), options) {}

BCD::BCD(Mlp mlp, const BCDOptions& options)
    : SplitOptimizer(mlp, options.loss(), options.loss_weight(), options.mean_loss(),
                     detail::trainer_of<BcdTrainer>(mlp, options.loss())),
      layers_(mlp.depth()),
      splitting_(options.splitting()),
      order_(static_cast<int64_t>(options.order())),
      inner_sweeps_(options.inner_sweeps()) {
  detail::spread(layers_, &Layer::gamma, options.gamma(), "gamma");
  detail::spread(layers_, &Layer::rho, options.rho(), "rho");
  detail::spread(layers_, &Layer::alpha, options.alpha(), "alpha");
  detail::spread(layers_, &Layer::alpha_weight, options.alpha_weight(), "alpha_weight");
  detail::spread(layers_, &Layer::weight_regularizer, options.weight_regularizer(), "weight_regularizer");
  detail::spread(layers_, &Layer::state_regularizer, options.state_regularizer(), "state_regularizer");
  apply_options();
}

std::vector<NamedOption> BCD::layer_options(size_t layer) {
  Layer& l = layers_[layer];
  return {{"gamma", &l.gamma},
          {"rho", &l.rho},
          {"alpha", &l.alpha},
          {"alpha_weight", &l.alpha_weight},
          {"weight_regularizer", &l.weight_regularizer},
          {"state_regularizer", &l.state_regularizer}};
}

std::vector<NamedOption> BCD::scheme_options() {
  std::vector<NamedOption> options = SplitOptimizer::scheme_options();
  options.insert(options.end(),
                 {{"splitting", &splitting_}, {"order", &order_}, {"inner_sweeps", &inner_sweeps_}});
  return options;
}

void BCD::apply_options() {
  TORCH_CHECK_VALUE(splitting_ == 2 || splitting_ == 3, "torchbcd.BCD: splitting must be 2 or 3 (got ",
                    splitting_, ")");
  TORCH_CHECK_VALUE(order_ == 0 || order_ == 1,
                    "torchbcd.BCD: order must be 0 (paper) or 1 (states first) (got ", order_, ")");
  SplitOptimizer::apply_options();
  BcdTrainer& trainer = engine(this->trainer());
  trainer.set_splitting(static_cast<Splitting>(splitting_));
  trainer.set_order(static_cast<UpdateOrder>(order_), inner_sweeps_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& l = layers_[i];
    trainer.set_layer_options(
        i, {l.gamma, l.rho.value_or(l.gamma), l.alpha, l.alpha_weight.value_or(l.alpha),
            detail::to_functor(l.weight_regularizer), detail::to_functor(l.state_regularizer)});
  }
}

void BCD::set_sum_over_ranks(std::function<void(const at::Tensor&)> sum) {
  engine(trainer()).set_sum_over_ranks(std::move(sum));
}

void BCD::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  apply_options();
  engine(trainer()).bind(inputs(x), y, sample_weight);
}

void BCD::step() {
  apply_options();
  engine(trainer()).step();
}

void BCD::step(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  apply_options();
  engine(trainer()).step(inputs(x), y, sample_weight);
}

void BCD::step_rows(const at::Tensor& index) {
  apply_options();
  engine(trainer()).step_rows(index);
}

double BCD::objective() { return objective_terms().total(); }

ObjectiveTerms BCD::objective_terms() {
  apply_options();
  return engine(trainer()).objective(false);
}

BCD::Variables BCD::variables() {
  TrainerState raw = engine(trainer()).variables(false);
  Variables variables{raw["weight"], raw["bias"], raw["u"], raw["x"]};
  variables.V.insert(variables.V.end(), raw["v"].begin(), raw["v"].end());
  return variables;
}

}  // namespace torchbcd
