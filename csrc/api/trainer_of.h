// A trainer of the engine for an Mlp of the public API.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/registry.h"
#include "torchbcd/mlp.h"

namespace torchbcd::detail {

template <typename Trainer>
std::unique_ptr<Trainer> trainer_of(const Mlp& mlp, const std::string& loss) {
  std::vector<functors::Activation> activations;
  for (const Activation& activation : mlp.activations) {
    activations.push_back(activation_from(activation.name, activation.parameters));
  }
  return std::make_unique<Trainer>(mlp.weights, mlp.biases, activations, loss_from(loss));
}

}  // namespace torchbcd::detail
