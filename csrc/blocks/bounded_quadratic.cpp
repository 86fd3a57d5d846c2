#include "blocks/bounded_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

namespace torchbcd {

at::Tensor bounded_quadratic(const at::Tensor& g, const at::Tensor& h, const at::Tensor& low,
                             const at::Tensor& high) {
  constexpr int kSteps = 30;
  const int64_t size = h.size(1);
  const at::Tensor diagonal = g.diagonal(0, 1, 2);
  const at::Tensor divisor = at::where(diagonal > 0, diagonal, 1);
  at::Tensor l = at::minimum(at::maximum(at::zeros_like(h), low), high);
  const auto image = [&](const at::Tensor& at_l) { return at::matmul(g, at_l.unsqueeze(2)).squeeze(2); };
  const auto value = [&](const at::Tensor& at_l) {
    return (image(at_l) * 0.5 + h).mul_(at_l).sum(1, /*keepdim=*/true);
  };
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor before = l.clone();
    for (int64_t j = 0; j < size; ++j) {
      const at::Tensor slope = (g.select(1, j) * l).sum(1).add_(h.select(1, j));
      const at::Tensor moved = l.select(1, j) - slope / divisor.select(1, j);
      l.select(1, j).copy_(at::minimum(at::maximum(moved, low.select(1, j)), high.select(1, j)));
    }
    const at::Tensor free = (l > low).logical_and_(l < high);
    const at::Tensor kept =
        g * free.unsqueeze(1) * free.unsqueeze(2) + at::diag_embed(at::where(free, divisor * 1e-14, 1));
    const at::Tensor slope = at::where(free, image(l).add_(h).neg_(), 0);
    const at::Tensor newton = l + std::get<0>(at::linalg_solve_ex(kept, slope.unsqueeze(2))).squeeze(2);
    const at::Tensor inside = at::minimum(at::maximum(newton, low), high);
    l = at::where(value(inside) <= value(l), inside, l);
    if ((l - before).abs().max().item<double>() <= 1e-13 * l.abs().max().item<double>()) {
      break;
    }
  }
  return l;
}

}  // namespace torchbcd
