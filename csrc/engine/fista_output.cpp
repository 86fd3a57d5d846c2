// z_L by FISTA (Beck & Teboulle, 2009), as Wang et al. solve eq. (5). The library's own prox is exact and
// faster; this is there to compare with.
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "engine/dlam_sweep.h"
#include "ops/passes.h"

namespace torchbcd {
namespace {

constexpr int kIterations = 200;

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

// The gradient of l(z; y) in z.
at::Tensor gradient(const functors::Loss& loss, const at::Tensor& y, const at::Tensor& z) {
  return std::visit(
      Overloaded{[&](functors::SquaredLoss) { return z - y; },
                 [&](functors::LogisticLoss) { return at::sigmoid(y * z).sub_(1).mul_(y); },
                 [&](functors::CrossEntropyLoss) { return at::softmax(z, 1).mul_(y.sum(1, true)).sub_(y); },
                 [&](auto) -> at::Tensor { TORCH_INTERNAL_ASSERT(false, "no Lipschitz gradient"); }},
      loss);
}

// A Lipschitz constant of that gradient, for each row: (n, 1).
at::Tensor lipschitz(const functors::Loss& loss, const at::Tensor& y) {
  return std::visit(
      Overloaded{[&](functors::SquaredLoss) { return at::full({y.size(0), 1}, 1, y.options()); },
                 [&](functors::LogisticLoss) { return y.square().amax(1, true).div_(4); },
                 [&](functors::CrossEntropyLoss) { return y.sum(1, true).div_(2); },
                 [&](auto) -> at::Tensor { TORCH_INTERNAL_ASSERT(false, "no Lipschitz gradient"); }},
      loss);
}

}  // namespace

bool has_lipschitz_gradient(const functors::Loss& loss) {
  return std::holds_alternative<functors::SquaredLoss>(loss) ||
         std::holds_alternative<functors::LogisticLoss>(loss) ||
         std::holds_alternative<functors::CrossEntropyLoss>(loss);
}

void fista_output(const at::Tensor& y, const at::Tensor& q, const at::Tensor& z, const at::Tensor& row_weight,
                  const functors::Loss& loss, double weight, double rho, const at::Tensor& out) {
  const at::Tensor scale = row_weight * weight;  // (n, 1) or (1, 1)
  const auto value = [&](const at::Tensor& at) {
    return passes::row_losses(y, at, loss).mul_(scale).add_((at - q).square_().sum(1, true), rho / 2);
  };
  const at::Tensor start = value(z);
  const at::Tensor better = value(q) < start;
  at::Tensor x = at::where(better, q, z);
  const at::Tensor total = (lipschitz(loss, y) * scale).add_(rho);  // of the whole objective's gradient
  at::Tensor point = x;
  double t = 1;
  for (int k = 0; k < kIterations; ++k) {
    const at::Tensor step = (gradient(loss, y, point).mul_(scale).add_(point - q, rho)).div_(total);
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
