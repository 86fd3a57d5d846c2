#include "blocks/bounded_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

namespace torchbcd {
namespace {

constexpr int kBoundedSteps = 30;
constexpr double kBoundedTolerance = 1e-12;  // of a problem's largest entry

}  // namespace

at::Tensor bounded_quadratic(const at::Tensor& g, const at::Tensor& h, const at::Tensor& low,
                             const at::Tensor& high) {
  const at::Tensor diagonals = g.diagonal(0, 1, 2);
  const at::Tensor divisors = at::where(diagonals > 0, diagonals, 1);
  const at::Tensor solution = at::minimum(at::maximum(at::zeros_like(h), low), high);
  at::Tensor live = at::arange(h.size(0), h.options().dtype(at::kLong));
  for (int step = 0; step < kBoundedSteps && live.numel() > 0; ++step) {
    const auto of = [&](const at::Tensor& all) { return all.index_select(0, live); };
    const at::Tensor matrix = of(g), linear = of(h), least = of(low), most = of(high), divisor = of(divisors);
    at::Tensor l = of(solution);
    const auto clip = [&](const at::Tensor& t) { return at::minimum(at::maximum(t, least), most); };
    const auto slope = [&](const at::Tensor& t) {
      return at::matmul(matrix, t.unsqueeze(2)).squeeze(2).add_(linear);
    };
    const auto value = [&](const at::Tensor& t) {
      return (slope(t) + linear).mul_(t).sum(1, /*keepdim=*/true);  // twice the objective
    };
    for (int64_t j = 0; j < l.size(1); ++j) {
      const at::Tensor moved =
          l.select(1, j) -
          (matrix.select(1, j) * l).sum(1).add_(linear.select(1, j)).div_(divisor.select(1, j));
      l.select(1, j).copy_(at::minimum(at::maximum(moved, least.select(1, j)), most.select(1, j)));
    }
    const at::Tensor free = (l > least).logical_and_(l < most);
    const at::Tensor kept =
        matrix * free.unsqueeze(1) * free.unsqueeze(2) + at::diag_embed(at::where(free, divisor * 1e-14, 1));
    const at::Tensor wanted = at::where(free, slope(l).neg_(), 0);
    const at::Tensor newton =
        clip(l + std::get<0>(at::linalg_solve_ex(kept, wanted.unsqueeze(2))).squeeze(2));
    l = at::where(value(newton) <= value(l), newton, l);
    at::Tensor(solution).index_copy_(0, live, l);
    const at::Tensor left = (clip(l - slope(l) / divisor) - l).abs_().amax(1);
    live = live.index_select(0, left.gt(l.abs().amax(1).mul_(kBoundedTolerance)).nonzero().squeeze(1));
  }
  return solution;
}

}  // namespace torchbcd
