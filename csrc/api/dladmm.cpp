#include "torchbcd/dladmm.h"

#include <utility>

#include "api/named_option.h"
#include "api/trainer_of.h"
#include "engine/dladmm.h"

namespace torchbcd {

using detail::NamedOption;

namespace {

DladmmTrainer& engine(MlpTrainer& trainer) { return static_cast<DladmmTrainer&>(trainer); }

}  // namespace

DLADMM::DLADMM(const torch::nn::Sequential& model, const DLADMMOptions& options)
    : DLADMM(read_mlp(model), options) {}

DLADMM::DLADMM(Mlp mlp, const DLADMMOptions& options)
    : SplitOptimizer(mlp, options.loss(), options.loss_weight(), options.mean_loss(),
                     detail::trainer_of<DladmmTrainer>(mlp, options.loss())),
      layers_(mlp.depth()) {
  detail::spread(layers_, &Layer::penalty, PerLayer<double>(options.nu().value_or(options.rho())), "nu");
  layers_.back().penalty = options.rho();
  detail::spread(layers_, &Layer::weight_regularizer, options.weight_regularizer(), "weight_regularizer");
  apply_options();
}

std::vector<NamedOption> DLADMM::layer_options(size_t layer) {
  Layer& l = layers_[layer];
  return {{"penalty", &l.penalty}, {"weight_regularizer", &l.weight_regularizer}};
}

void DLADMM::apply_options() {
  SplitOptimizer::apply_options();
  for (size_t i = 0; i < layers_.size(); ++i) {
    engine(trainer()).set_layer_options(
        i, {layers_[i].penalty, detail::to_functor(layers_[i].weight_regularizer)});
  }
}

void DLADMM::bind(const at::Tensor& x, const at::Tensor& y, const at::Tensor& sample_weight) {
  apply_options();
  engine(trainer()).bind(inputs(x), y, sample_weight);
}

const DladmmReport& DLADMM::step() {
  apply_options();
  return engine(trainer()).step();
}

double DLADMM::objective() {
  apply_options();
  return engine(trainer()).objective().total();
}

}  // namespace torchbcd
