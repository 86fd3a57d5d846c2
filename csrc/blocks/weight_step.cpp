#include "blocks/weight_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_pinv.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "blocks/least_squares.h"
#include "blocks/weight_quadratic.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

double square_norm(const AffineMap& map) {
  return passes::sum_of_squares(map.weight) + (map.bias.defined() ? passes::sum_of_squares(map.bias) : 0);
}

}  // namespace

WeightStep weight_step(const at::Tensor& a, const at::Tensor& z, const AffineMap& from, double rho,
                       const WeightRegularizer& omega, double theta_guess, const WeightStepBuffers& buffers,
                       const AffineMap& next, const at::Tensor& q_out, const Totals& totals) {
  WeightStep step;
  const bool bias = from.bias.defined();
  AffineMap direction;  // first the negative gradient of phi, later W' - Wbar
  direction.weight = at::mm(buffers.residual.t(), a).mul_(-rho);
  step.products = 1;
  if (bias) {
    direction.bias = buffers.residual.sum(0).mul_(-rho);
  }
  totals.add_up_matrices(tensors_of({direction}));
  // Leaves a D^T in buffers.product, and returns rho |a D^T|^2.
  const auto measure = [&] {
    affine_out(a, direction, buffers.product);
    ++step.products;
    ++step.trials;
    step.distance = square_norm(direction);
    return rho * totals.of(passes::sum_of_squares(buffers.product));
  };
  if (omega.quadratic()) {
    if (omega.entries.l2 != 0) {
      direction.weight.sub_(from.weight, omega.entries.l2);
    }
    const double curvature = measure();
    step.theta = step.distance > 0 ? curvature / step.distance : 0;
    const double length = step.theta + omega.entries.l2 > 0 ? 1 / (step.theta + omega.entries.l2) : 0;
    next.weight.copy_(from.weight).add_(direction.weight, length);
    if (bias) {
      next.bias.copy_(from.bias).add_(direction.bias, length);
    }
    step.distance *= length * length;
    step.residual = passes::residual_step(buffers.residual, buffers.product, z, length, q_out);
  } else {
    const AffineMap gradient = direction;
    direction = {at::empty_like(from.weight), bias ? at::empty_like(from.bias) : at::Tensor()};
    step.theta = theta_guess;
    // Far more than 1.2^k needs to cross the range of a Gram matrix's eigenvalues.
    constexpr int kTrials = 100;
    for (;;) {
      next.weight.copy_(from.weight).add_(gradient.weight, 1 / step.theta);
      prox_weight_regularizer_(omega, 1 / step.theta, next.weight);
      at::sub_out(direction.weight, next.weight, from.weight);
      if (bias) {
        next.bias.copy_(from.bias).add_(gradient.bias, 1 / step.theta);
        at::sub_out(direction.bias, next.bias, from.bias);
      }
      const double curvature = measure();
      if (step.theta * step.distance >= curvature || step.trials == kTrials) {
        break;
      }
      step.theta = std::max(1.2 * step.theta, curvature / step.distance);
    }
    step.residual = passes::residual_step(buffers.residual, buffers.product, z, 1, q_out);
  }
  step.regularizer = regularizer_value(omega, next.weight);
  return step;
}

void exact_weights(const at::Tensor& a, const at::Tensor& residual, const AffineMap& previous, double rho,
                   const WeightRegularizer& omega, const char* where, const AffineMap& next,
                   const SumOverRanks& sum_over_ranks) {
  const int64_t inputs = a.size(1);
  const bool bias = previous.bias.defined();
  const at::Tensor v = a.to(at::kDouble);
  WeightSums sums({v, bias, sum_over_ranks});
  sums.start_cross(residual.to(at::kDouble));
  const at::Tensor gram = gram_matrix(sums.gram());
  const at::Tensor cross = sums.cross();
  TORCH_CHECK_LINALG(all_finite(gram), where, ": the Gram matrix of the inputs is not finite");
  const at::Tensor start = joined(previous).to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  if (omega.quadratic()) {
    constexpr double kRank = 1e-12;  // of the Gram matrix's eigenvalues
    gram.diagonal().narrow(0, 0, inputs).add_(omega.entries.l2 / rho);
    cross.narrow(1, 0, inputs).sub_(start.narrow(1, 0, inputs), omega.entries.l2 / rho);
    split_out(at::mm(cross, at::linalg_pinv(gram, kRank, /*hermitian=*/true)).add_(start), next);
    return;
  }
  // The proximal point method: each step has a proximal term so small that few are needed, and the gradient
  // of eq. (1) where it ends is off by what that term's is, and by what rounding leaves of the steps' values:
  // 1e-7 of the largest slope at the start, at the most, where inputs depend on each other.
  constexpr double kRidge = 1e-8;  // of the Gram matrix's mean diagonal entry
  constexpr double kTolerance = 1e-10;
  constexpr int kSteps = 100;
  const double ridge = kRidge * std::max(gram.diagonal().mean().item<double>(), 1e-30);
  const double strength = std::max({omega.entries.l1, omega.by_input, omega.by_unit});
  const at::Tensor hessian = gram.clone();
  hessian.diagonal().add_(ridge);
  const WeightQuadratic problem(hessian, omega, 1 / rho, inputs, where);
  const double enough = kTolerance * std::max(cross.abs().max().item<double>(), strength / rho);
  const at::Tensor solution = start.clone();
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor from = solution.clone();
    problem.minimise_(solution, from, cross - at::mm(from - start, gram));
    if (ridge * (solution - from).abs().max().item<double>() <= enough) {
      break;
    }
  }
  split_out(solution, next);
}

}  // namespace torchbcd
