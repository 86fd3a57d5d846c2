#include "torchbcd/relaxed_bcd.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "api/named_option.h"
#include "api/trainer_of.h"
#include "engine/relaxed.h"

namespace torchbcd {

using detail::NamedOption;

namespace {

// Relaxations must stay below 2, and learn no better above this one.
constexpr double kMostGrown = 1.5;

RelaxedTrainer& engine(MlpTrainer& trainer) { return static_cast<RelaxedTrainer&>(trainer); }

}  // namespace

RelaxedBCD::RelaxedBCD(const torch::nn::Sequential& model, const RelaxedBCDOptions& options)
    : RelaxedBCD(read_mlp(model), options) {}

RelaxedBCD::RelaxedBCD(Mlp mlp, const RelaxedBCDOptions& options)
    : SplitOptimizer(mlp, options.loss(), options.loss_weight(), options.mean_loss(),
                     detail::trainer_of<RelaxedTrainer>(mlp, options.loss())),
      layers_(mlp.depth()),
      guard_(options.guard()),
      persistent_(options.persistent()),
      output_penalty_(options.output_penalty()) {
  detail::spread(layers_, &Layer::lr, PerLayer<double>(options.lr()), "lr");
  detail::spread(layers_, &Layer::relaxation, options.relaxation(), "relaxation");
  TORCH_CHECK_VALUE(std::isfinite(options.growth()) && options.growth() >= 1,
                    "torchbcd.RelaxedBCD: growth must be finite and at least 1 (got ", options.growth(), ")");
  if (options.relaxation().uniform()) {
    const double most = std::max(layers_.back().relaxation, kMostGrown);
    for (size_t l = layers_.size() - 1; l-- > 1;) {
      layers_[l - 1].relaxation = std::min(layers_[l].relaxation * options.growth(), most);
    }
    layers_.back().relaxation = options.output_relaxation();
  }
  detail::spread(layers_, &Layer::over_relaxation, options.over_relaxation(), "over_relaxation");
  detail::spread(layers_, &Layer::damping, options.damping(), "damping");
  detail::spread(layers_, &Layer::penalty_ratio, options.penalty_ratio(), "penalty_ratio");
  detail::spread(layers_, &Layer::state_steps, options.state_steps(), "state_steps");
  detail::spread(layers_, &Layer::row_blocks, options.row_blocks(), "row_blocks");
  detail::spread(layers_, &Layer::cap, options.cap(), "cap");
  detail::spread(layers_, &Layer::momentum, options.momentum(), "momentum");
  detail::spread(layers_, &Layer::weight_decay, options.weight_decay(), "weight_decay");
  detail::spread(layers_, &Layer::weight_regularizer, options.weight_regularizer(), "weight_regularizer");
  apply_options();
}

std::vector<NamedOption> RelaxedBCD::layer_options(size_t layer) {
  Layer& l = layers_[layer];
  return {{"lr", &l.lr},
          {"relaxation", &l.relaxation},
          {"over_relaxation", &l.over_relaxation},
          {"damping", &l.damping},
          {"penalty_ratio", &l.penalty_ratio},
          {"state_steps", &l.state_steps},
          {"row_blocks", &l.row_blocks},
          {"cap", &l.cap},
          {"momentum", &l.momentum},
          {"weight_decay", &l.weight_decay},
          {"weight_regularizer", &l.weight_regularizer}};
}

std::vector<NamedOption> RelaxedBCD::scheme_options() {
  std::vector<NamedOption> options = SplitOptimizer::scheme_options();
  options.insert(options.end(),
                 {{"guard", &guard_}, {"persistent", &persistent_}, {"output_penalty", &output_penalty_}});
  return options;
}

void RelaxedBCD::apply_options() {
  SplitOptimizer::apply_options();
  RelaxedTrainer& trainer = engine(this->trainer());
  trainer.set_options({guard_, persistent_, output_penalty_});
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& l = layers_[i];
    TORCH_CHECK_VALUE(!l.cap || *l.cap > 0, "torchbcd.RelaxedBCD: cap of layer ", i + 1, " must be > 0 (got ",
                      *l.cap, ")");
    trainer.set_layer_options(
        i, {l.lr * l.relaxation, l.over_relaxation, l.damping, l.penalty_ratio, l.state_steps, l.row_blocks,
            l.cap.value_or(0), l.momentum, l.lr * l.weight_decay, detail::to_functor(l.weight_regularizer)});
  }
}

void RelaxedBCD::set_lr(double lr) { set_option("lr", {lr}); }

void RelaxedBCD::bind(const at::Tensor& x, const at::Tensor& y) { engine(trainer()).bind(inputs(x), y); }

const RelaxedReport& RelaxedBCD::step() {
  apply_options();
  return engine(trainer()).step();
}

const RelaxedReport& RelaxedBCD::step(const at::Tensor& x, const at::Tensor& y) {
  apply_options();
  return engine(trainer()).step(inputs(x), y);
}

const RelaxedReport& RelaxedBCD::report() const { return engine(trainer()).report(); }

double RelaxedBCD::objective() { return engine(trainer()).objective().total(); }

}  // namespace torchbcd
