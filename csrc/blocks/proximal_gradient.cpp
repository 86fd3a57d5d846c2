#include "blocks/proximal_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <variant>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr int kFistaIterations = 200;

void fista_of_one(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
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

}  // namespace

bool has_lipschitz_gradient(const OutputLoss& loss) {
  return std::all_of(loss.parts.begin(), loss.parts.end(), [](const OutputLoss::Part& part) {
    return std::visit([](const auto& l) { return l.lipschitz_gradient; }, part.loss);
  });
}

void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const OutputLoss& loss, double weight, double rho, const at::Tensor& out) {
  for (const OutputLoss::Part& part : loss.parts) {
    fista_of_one(part.of(y), part.of(q), part.of(z), row_weight, part.loss, weight * part.weight, rho,
                 part.of(out));
  }
}

}  // namespace torchbcd
