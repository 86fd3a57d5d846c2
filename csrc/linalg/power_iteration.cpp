#include "linalg/power_iteration.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>

#include <utility>

namespace torchbcd {

PowerIteration power_iteration(const std::function<at::Tensor(const at::Tensor&)>& apply, at::Tensor start,
                               int steps) {
  PowerIteration at{std::move(start)};
  for (int k = 0; k < steps; ++k) {
    at.vector = apply(at.vector);
    at.norm = at::linalg_vector_norm(at.vector).item<double>();
    if (!(at.norm > 0)) {
      return {at.vector, 0};
    }
    at.vector.div_(at.norm);
  }
  return at;
}

double largest_eigenvalue(const at::Tensor& matrix) {
  constexpr int kSteps = 20;
  const at::Tensor start = at::ones({matrix.size(0)}, matrix.options());
  return power_iteration([&](const at::Tensor& v) { return at::mv(matrix, v); }, start, kSteps).norm;
}

double spectral_norm_squared(const at::Tensor& weight) {
  constexpr int kSteps = 10;
  const at::Tensor start = at::ones({weight.size(1)}, weight.options());
  const PowerIteration found = power_iteration(
      [&](const at::Tensor& v) { return at::mv(weight.t(), at::mv(weight, v)); }, start, kSteps);
  return found.norm > 0 ? at::mv(weight, found.vector).to(at::kDouble).square().sum().item<double>() : 0;
}

}  // namespace torchbcd
