#include "blocks/proximal_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>
#include <utility>
#include <variant>

#include "kernels/passes.h"
#include "linalg/spd.h"

namespace torchbcd {
namespace {

constexpr int kProximalSteps = 200;
constexpr int kFistaIterations = 200;
constexpr int kFailures = 6;  // doublings of the step bound in a row before giving up

double sum_of_products(const at::Tensor& a, const at::Tensor& b) {
  return a.mul(b).sum(at::kDouble).item<double>();
}

}  // namespace

double regularizer_value(const Regularizer& regularizer, const at::Tensor& values) {
  double value = 0;
  if (values.numel() == 0) {
    return value;
  }
  if (regularizer.bounded()) {
    // Bounds in the precision of the values: projecting onto [0, 0.1] gives the float32 next to 0.1.
    const bool single = values.scalar_type() == at::kFloat;
    const double low = single ? static_cast<float>(regularizer.low) : regularizer.low;
    const double high = single ? static_cast<float>(regularizer.high) : regularizer.high;
    if (values.min().item<double>() < low || values.max().item<double>() > high) {
      return std::numeric_limits<double>::infinity();
    }
  }
  if (regularizer.l1 != 0) {
    value += regularizer.l1 * values.abs().sum(at::kDouble).item<double>();
  }
  if (regularizer.l2 != 0) {
    value += 0.5 * regularizer.l2 * values.to(at::kDouble).square().sum().item<double>();
  }
  return value;
}

QuadraticPlusRegularizer::QuadraticPlusRegularizer(at::Tensor hessian, const Regularizer& regularizer,
                                                   double scale, int64_t regularized)
    : hessian_(std::move(hessian)),
      regularizer_(regularizer),
      scale_(scale),
      regularized_(regularized),
      lipschitz_(1.02 * largest_eigenvalue(hessian_)) {}

double QuadraticPlusRegularizer::objective(const at::Tensor& x, const at::Tensor& difference,
                                           const at::Tensor& image, const at::Tensor& linear) const {
  const double smooth = 0.5 * sum_of_products(difference, image) - sum_of_products(linear, difference);
  return smooth + scale_ * regularizer_value(regularizer_, x.narrow(1, 0, regularized_));
}

// FISTA with a monotone safeguard: an extrapolated step that does not lower the objective is taken again
// without extrapolation, and one that then still does not with a smaller step, since a power iteration gives
// the step's bound from below only.
void QuadraticPlusRegularizer::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                         const at::Tensor& linear) const {
  const double tolerance = x.scalar_type() == at::kDouble ? 1e-10 : 1e-6;
  at::Tensor difference = x.sub(centre);
  at::Tensor image = at::mm(difference, hessian_);
  double least = objective(x, difference, image, linear);
  at::Tensor y = x.clone();
  at::Tensor y_image = image;
  double bound = lipschitz_;
  double momentum = 1;
  int failures = 0;
  for (int k = 0; k < kProximalSteps && failures < kFailures; ++k) {
    const at::Tensor z = y.sub(y_image.sub(linear).div_(bound));
    at::Tensor covered = z.narrow(1, 0, regularized_);
    passes::prox_regularizer(covered, regularizer_, scale_ / bound, covered);
    const at::Tensor z_difference = z.sub(centre);
    const at::Tensor z_image = at::mm(z_difference, hessian_);
    const double value = objective(z, z_difference, z_image, linear);
    if (!(value <= least)) {
      if (momentum == 1) {
        bound *= 2;
        ++failures;
      }
      momentum = 1;
      y.copy_(x);
      y_image = image;
      continue;
    }
    failures = 0;
    const double moved = z.sub(y).abs().max().item<double>();
    const double size = z.abs().max().item<double>();
    const double next_momentum = 0.5 * (1 + std::sqrt(1 + 4 * momentum * momentum));
    const double weight = (momentum - 1) / next_momentum;
    y = z.add(z.sub(x), weight);
    y_image = z_image.add(z_image.sub(image), weight);
    x.copy_(z);
    image = z_image;
    least = value;
    momentum = next_momentum;
    if (moved <= tolerance * size) {
      break;
    }
  }
}

bool has_lipschitz_gradient(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.lipschitz_gradient; }, loss);
}

void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const functors::AnyLoss& loss, double weight, double rho, const at::Tensor& out) {
  const at::Tensor scale = row_weight * weight;  // (n, 1) or (1, 1)
  const auto value = [&](const at::Tensor& at) {
    return passes::row_losses(y, at, loss).mul_(scale).add_((at - q).square_().sum(1, true), rho / 2);
  };
  const at::Tensor start = value(z);
  const at::Tensor better = value(q) < start;
  at::Tensor x = at::where(better, q, z);
  const at::Tensor total =
      (passes::gradient_lipschitz(y, loss) * scale).add_(rho);  // of the whole objective's gradient
  at::Tensor point = x;
  double t = 1;
  const at::Tensor gradient = at::empty_like(z);
  for (int k = 0; k < kFistaIterations; ++k) {
    passes::loss_gradient(y, point, loss, gradient);
    const at::Tensor step = (gradient.mul_(scale).add_(point - q, rho)).div_(total);
    const at::Tensor next = point - step;
    const double t_next = (1 + std::sqrt(1 + 4 * t * t)) / 2;
    // Gradient restart, row by row: momentum that points uphill is dropped.
    const at::Tensor change = next - x;
    const at::Tensor uphill = (step * change).sum(1, true) > 0;
    point = at::where(uphill, next, next + change * ((t - 1) / t_next));
    x = next;
    t = t_next;
  }
  at::Tensor result = out;
  result.copy_(at::where(value(x) < start, x, z));
}

}  // namespace torchbcd
