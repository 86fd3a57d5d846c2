#include "blocks/nonlinear_least_squares.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <utility>

#include "kernels/passes.h"
#include "linalg/power_iteration.h"

namespace torchbcd {
namespace {

constexpr int kGaussNewtonSteps = 10;
constexpr int kArmijoHalvings = 16;
constexpr double kArmijo = 1e-4;
constexpr double kConverged = 1e-14;  // relative decrease of every row below which iterating ends

at::Tensor apply(const functors::AnyActivation& activation, const at::Tensor& u) {
  const at::Tensor out = at::empty_like(u, at::MemoryFormat::Contiguous);
  passes::activation(u, activation, out);
  return out;
}

at::Tensor derivative(const functors::AnyActivation& activation, const at::Tensor& u) {
  const at::Tensor out = at::empty_like(u, at::MemoryFormat::Contiguous);
  passes::activation_derivative(u, activation, out);
  return out;
}

// Sums over rows, (m, 1), in float64.
at::Tensor row_sum(const at::Tensor& values) { return values.sum(1, /*keepdim=*/true, at::kDouble); }

}  // namespace

NonlinearLeastSquares::NonlinearLeastSquares(at::Tensor m, double kappa, double gamma,
                                             const functors::AnyActivation& activation,
                                             const Regularizer& regularizer, int64_t regularized)
    : m_(std::move(m)),
      kappa_(kappa),
      gamma_(gamma),
      activation_(activation),
      regularizer_(regularizer),
      regularized_(regularized) {}

at::Tensor NonlinearLeastSquares::row_objective(const at::Tensor& x, const at::Tensor& centre,
                                                const at::Tensor& target, const at::Tensor& product) const {
  at::Tensor value = row_sum(x.sub(centre).square_()).mul_(kappa_ / 2);
  value.add_(row_sum(target.sub(apply(activation_, product)).square_()), gamma_ / 2);
  const at::Tensor covered = x.narrow(1, 0, regularized_);
  if (regularizer_.l2 != 0) {
    value.add_(row_sum(covered.square()), regularizer_.l2 / 2);
  }
  if (regularizer_.l1 != 0) {
    value.add_(row_sum(covered.abs()), regularizer_.l1);
  }
  if (regularizer_.bounded()) {
    const at::Tensor outside = covered.lt(regularizer_.low).logical_or_(covered.gt(regularizer_.high));
    value.masked_fill_(outside.any(1, /*keepdim=*/true), std::numeric_limits<double>::infinity());
  }
  return value;
}

void NonlinearLeastSquares::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                                      const at::Tensor& product, const char* where) const {
  at::Tensor slopes = derivative(activation_, product);
  const double steepest = slopes.numel() == 0 ? 0 : slopes.abs().max().item<double>();
  const double metric = gamma_ * steepest * steepest;
  const bool smooth = regularizer_.quadratic();
  // Smooth: the direction solves with kappa I + metric M^T M (+ l2 I on the regularised columns; a column of
  // ones, the bias, is not among them). Otherwise its largest eigenvalue bounds the step.
  SpdFactor factored;
  double lipschitz = 0;
  if (metric > 0) {
    const GramSystem system{.a = m_, .ridge = (kappa_ + (smooth ? regularizer_.l2 : 0)) / metric};
    if (smooth) {
      factored = factor(system, where);
    } else {
      lipschitz = 1.02 * metric * largest_eigenvalue(gram_matrix(system));
    }
  } else {
    lipschitz = kappa_ + regularizer_.l2;
  }
  at::Tensor value = row_objective(x, centre, target, product);
  for (int k = 0; k < kGaussNewtonSteps; ++k) {
    if (k > 0) {
      slopes = derivative(activation_, product);
    }
    const at::Tensor error = target.sub(apply(activation_, product)).mul_(slopes);
    at::Tensor gradient = x.sub(centre).mul_(kappa_);
    gradient.addmm_(error, m_, 1, -gamma_);
    at::Tensor direction;
    if (smooth) {
      if (regularizer_.l2 != 0) {
        gradient.narrow(1, 0, regularized_).add_(x.narrow(1, 0, regularized_), regularizer_.l2);
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
      at::Tensor covered = direction.narrow(1, 0, regularized_);
      passes::prox_regularizer(covered, regularizer_, 1 / lipschitz, covered);
      direction.sub_(x);
    }
    // Armijo's rule on the smooth slope; for a proximal step, on the decrease kappa/2 |D|^2 that it promises.
    const at::Tensor promised =
        smooth ? row_sum(gradient.mul(direction)).neg_() : row_sum(direction.square()).mul_(kappa_ / 2);
    const at::Tensor image = at::mm(direction, m_.t());
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
