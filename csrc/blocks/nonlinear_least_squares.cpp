#include "blocks/nonlinear_least_squares.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <variant>
#include <vector>

#include "blocks/piecewise_lines.h"
#include "blocks/piecewise_quadratic.h"
#include "blocks/regularized_quadratic.h"
#include "blocks/splitting_start.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

constexpr int kGaussNewtonSteps = 30;
constexpr int kArmijoHalvings = 16;
constexpr double kArmijo = 1e-4;
constexpr double kConverged = 1e-14;  // relative decrease of every row below which iterating ends

at::Tensor sigma(const functors::AnyActivation& activation, const at::Tensor& u) {
  return passes::activation(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
}

at::Tensor derivative(const functors::AnyActivation& activation, const at::Tensor& u) {
  return passes::activation_derivative(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
}

}  // namespace

at::Tensor NonlinearLeastSquares::row_objective(const at::Tensor& x, const at::Tensor& centre,
                                                const at::Tensor& target, const at::Tensor& product) const {
  at::Tensor value = row_sum(x.sub(centre).square_()).mul_(kappa / 2);
  value.add_(row_sum(target.sub(sigma(activation, product)).square_()), gamma / 2);
  return value.add_(row_regularizer(regularizer, x.narrow(1, 0, regularized)));
}

void NonlinearLeastSquares::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                                      const at::Tensor& product, const char* where) const {
  if (is_piecewise_linear(activation)) {
    PiecewiseQuadratic{m, offset, kappa, gamma, activation, regularizer, regularized}.minimise_(x, centre,
                                                                                                target);
    at::Tensor(product).copy_(product_of(x, m, offset));
    return;
  }
  // Of monotone activations too where the slope is not bounded: far from the minimiser one step may go far
  // off.
  const bool one_start =
      std::visit([](const auto& f) { return f.bounded_slope && f.monotone(); }, activation);
  std::vector<at::Tensor> starts;
  if (!one_start) {
    for (const double ratio : {1.0, 0.3}) {
      const double ridge = kappa / (ratio * gamma);
      const SpdFactor factored = factor({.a = m, .ridge = ridge}, where);
      const auto solve = [&](at::Tensor rows) {
        factored.solve_(rows);
        return rows;
      };
      starts.push_back(splitting_start(x, centre, target, m, offset, activation, ratio, ridge, solve));
    }
    starts.push_back(at::zeros_like(x));
  }
  at::Tensor least = descend_(x, centre, target, product, where);
  for (const at::Tensor& start : starts) {
    if (regularizer.bounded()) {
      start.narrow(1, 0, regularized).clamp_(regularizer.low, regularizer.high);
    }
    const at::Tensor image = product_of(start, m, offset);
    const at::Tensor value = descend_(start, centre, target, image, where);
    const at::Tensor lower = value < least;
    least = at::where(lower, value, least);
    at::Tensor(x).copy_(at::where(lower, start, x));
    at::Tensor(product).copy_(at::where(lower, image, product));
  }
}

at::Tensor NonlinearLeastSquares::descend_(const at::Tensor& x, const at::Tensor& centre,
                                           const at::Tensor& target, const at::Tensor& product,
                                           const char* where) const {
  at::Tensor slopes = derivative(activation, product);
  const double steepest = slopes.numel() == 0 ? 0 : slopes.abs().max().item<double>();
  const double metric = gamma * steepest * steepest;
  const bool smooth = regularizer.quadratic();
  // The model has the curvature kappa I + metric M^T M (+ l2 I on the regularised columns; a column of ones,
  // the bias, is not among them).
  SpdFactor factored;
  QuadraticPlusRegularizer model;
  if (!smooth) {
    at::Tensor hessian = metric > 0 ? gram_matrix({.a = m, .ridge = kappa / metric}).mul_(metric)
                                    : at::eye(x.size(1), x.options()).mul_(kappa);
    model = QuadraticPlusRegularizer(hessian, regularizer, /*scale=*/1, regularized);
  } else if (metric > 0) {
    factored = factor({.a = m, .ridge = (kappa + regularizer.l2) / metric}, where);
  }
  at::Tensor value = row_objective(x, centre, target, product);
  for (int k = 0; k < kGaussNewtonSteps; ++k) {
    if (k > 0) {
      slopes = derivative(activation, product);
    }
    const at::Tensor error = target.sub(sigma(activation, product)).mul_(slopes);
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
        direction.div_(kappa + regularizer.l2);
      }
    } else {
      direction = x.clone();
      model.minimise_(direction, x, gradient.neg());
      direction.sub_(x);
    }
    // Armijo's rule on the smooth slope; for a step of the model with the regulariser, on the decrease
    // kappa/2 |D|^2 that it promises.
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
  return value;
}

}  // namespace torchbcd
