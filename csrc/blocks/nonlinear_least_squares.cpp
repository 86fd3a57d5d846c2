#include "blocks/nonlinear_least_squares.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "blocks/piecewise_quadratic.h"
#include "kernels/passes.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

constexpr int kGaussNewtonSteps = 10;
constexpr int kArmijoHalvings = 16;
constexpr double kArmijo = 1e-4;
constexpr double kConverged = 1e-14;  // relative decrease of every row below which iterating ends

at::Tensor apply(const functors::AnyActivation& activation, const at::Tensor& u) {
  return passes::activation(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
}

at::Tensor derivative(const functors::AnyActivation& activation, const at::Tensor& u) {
  return passes::activation_derivative(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
}

// Sums over rows, (m, 1), in float64.
at::Tensor row_sum(const at::Tensor& values) { return values.sum(1, /*keepdim=*/true, at::kDouble); }

}  // namespace

at::Tensor NonlinearLeastSquares::row_objective(const at::Tensor& x, const at::Tensor& centre,
                                                const at::Tensor& target, const at::Tensor& product) const {
  at::Tensor value = row_sum(x.sub(centre).square_()).mul_(kappa / 2);
  value.add_(row_sum(target.sub(apply(activation, product)).square_()), gamma / 2);
  const at::Tensor covered = x.narrow(1, 0, regularized);
  if (regularizer.l2 != 0) {
    value.add_(row_sum(covered.square()), regularizer.l2 / 2);
  }
  if (regularizer.l1 != 0) {
    value.add_(row_sum(covered.abs()), regularizer.l1);
  }
  if (regularizer.bounded()) {
    const at::Tensor outside = covered.lt(regularizer.low).logical_or_(covered.gt(regularizer.high));
    value.masked_fill_(outside.any(1, /*keepdim=*/true), std::numeric_limits<double>::infinity());
  }
  return value;
}

void NonlinearLeastSquares::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                                      const at::Tensor& product, const char* where) const {
  if (is_piecewise_linear(activation)) {
    PiecewiseQuadratic{m, offset, kappa, gamma, activation, regularizer, regularized}.minimise_(x, centre,
                                                                                                target);
    at::Tensor fresh = product;
    at::mm_out(fresh, x, m.t());
    if (offset.defined()) {
      fresh.add_(offset);
    }
    return;
  }
  at::Tensor slopes = derivative(activation, product);
  const double steepest = slopes.numel() == 0 ? 0 : slopes.abs().max().item<double>();
  const double metric = gamma * steepest * steepest;
  const bool smooth = regularizer.quadratic();
  // Smooth: the direction solves with kappa I + metric M^T M (+ l2 I on the regularised columns; a column of
  // ones, the bias, is not among them). Otherwise its largest eigenvalue bounds the step.
  SpdFactor factored;
  double lipschitz = 0;
  if (metric > 0) {
    const GramSystem system{.a = m, .ridge = (kappa + (smooth ? regularizer.l2 : 0)) / metric};
    if (smooth) {
      factored = factor(system, where);
    } else {
      lipschitz = 1.02 * metric * largest_eigenvalue(gram_matrix(system));
    }
  } else {
    lipschitz = kappa + regularizer.l2;
  }
  at::Tensor value = row_objective(x, centre, target, product);
  for (int k = 0; k < kGaussNewtonSteps; ++k) {
    if (k > 0) {
      slopes = derivative(activation, product);
    }
    const at::Tensor error = target.sub(apply(activation, product)).mul_(slopes);
    at::Tensor gradient = x.sub(centre).mul_(kappa);
    gradient.addmm_(error, m, 1, -gamma);
    at::Tensor direction;
    if (smooth) {
      if (regularizer.l2 != 0) {
        gradient.narrow(1, 0, regularized).add_(x.narrow(1, 0, regularized), regularizer.l2);
      }
      direction = gradient.neg();
      if (factored.defined()) {
        factored.solve_(direction);
        direction.div_(metric);
      } else {
        direction.div_(lipschitz);
      }
    } else {
      direction = x.sub(gradient, 1 / lipschitz);
      at::Tensor covered = direction.narrow(1, 0, regularized);
      passes::prox_regularizer(covered, regularizer, 1 / lipschitz, covered);
      direction.sub_(x);
    }
    // Armijo's rule on the smooth slope; for a proximal step, on the decrease kappa/2 |D|^2 that it promises.
    const at::Tensor promised =
        smooth ? row_sum(gradient.mul(direction)).neg_() : row_sum(direction.square()).mul_(kappa / 2);
    const at::Tensor image = at::mm(direction, m.t());
    at::Tensor step = at::ones_like(value);
    at::Tensor best = value.clone();
    for (int halving = 0; halving <= kArmijoHalvings; ++halving) {
      const at::Tensor scaled = step.to(x.scalar_type());
      const at::Tensor trial =
          row_objective(x.addcmul(direction, scaled), centre, target, product.addcmul(image, scaled));
      // A NaN fails the test, and so does a step that lowers nothing.
      const at::Tensor good = trial.le(value.sub(promised.mul(step), kArmijo)).logical_and_(trial.lt(value));
      const at::Tensor settled = good.logical_or(step.eq(0));
      best = at::where(good, trial, best);
      if (settled.all().item<bool>()) {
        break;
      }
      step = at::where(settled, step, halving + 1 < kArmijoHalvings ? step.mul(0.5) : at::zeros_like(step));
    }
    const at::Tensor scaled = step.to(x.scalar_type());
    x.addcmul_(direction, scaled);
    product.addcmul_(image, scaled);
    const at::Tensor decrease = value.sub(best);
    value = best;
    if (decrease.le(value.abs().mul(kConverged)).all().item<bool>()) {
      break;
    }
  }
}

}  // namespace torchbcd
