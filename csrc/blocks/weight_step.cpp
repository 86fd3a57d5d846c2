#include "blocks/weight_step.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>

#include <algorithm>

#include "blocks/regularized_quadratic.h"
#include "kernels/passes.h"

namespace torchbcd {
namespace {

double square_norm(const AffineMap& map) {
  return passes::sum_of_squares(map.weight) + (map.bias.defined() ? passes::sum_of_squares(map.bias) : 0);
}

}  // namespace

WeightStep weight_step(const at::Tensor& a, const at::Tensor& z, const AffineMap& from, double rho,
                       const Regularizer& omega, double theta_guess, const WeightStepBuffers& buffers,
                       const AffineMap& next, const at::Tensor& q_out) {
  WeightStep step;
  const bool bias = from.bias.defined();
  AffineMap direction;  // first the negative gradient of phi, later W' - Wbar
  direction.weight = at::mm(buffers.residual.t(), a).mul_(-rho);
  step.products = 1;
  if (bias) {
    direction.bias = buffers.residual.sum(0).mul_(-rho);
  }
  // Leaves a D^T in buffers.product, and returns rho |a D^T|^2.
  const auto measure = [&] {
    affine_out(a, direction, buffers.product);
    ++step.products;
    ++step.trials;
    step.distance = square_norm(direction);
    return rho * passes::sum_of_squares(buffers.product);
  };
  if (omega.quadratic()) {
    if (omega.l2 != 0) {
      direction.weight.sub_(from.weight, omega.l2);
    }
    const double curvature = measure();
    step.theta = step.distance > 0 ? curvature / step.distance : 0;
    const double length = step.theta + omega.l2 > 0 ? 1 / (step.theta + omega.l2) : 0;
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
      passes::prox_regularizer(next.weight, omega, 1 / step.theta, next.weight);
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

}  // namespace torchbcd
