#include "blocks/output_scale.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "kernels/passes.h"
#include "kernels/registry.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr double kFar = 3;  // from here on t (p - mean) is nearer to the targets than p, whatever they are

}  // namespace

bool match_output_scale(const at::Tensor& p, const at::Tensor& y, const functors::AnyLoss& loss,
                        const AffineMap& map, const SumOverRanks& sum) {
  const at::Tensor outputs = p.to(at::kDouble);
  const at::Tensor targets = y.to(at::kDouble);
  const at::Tensor mean = row_mean(outputs, sum);
  const bool values = predicts_targets(loss);
  const at::Tensor centre = values && map.bias.defined() ? row_mean(targets, sum) : at::zeros_like(mean);
  const at::Tensor spread = map.bias.defined() ? outputs - mean : outputs;
  const Totals totals(sum, p.device());
  const double found = totals.of(norm_squared(spread));
  const double wanted =
      totals.of(values ? norm_squared(targets - centre) : static_cast<double>(outputs.numel()));
  if (wanted == 0 || !(found > kFar * kFar * wanted)) {
    return false;
  }
  const double t = std::sqrt(wanted / found);
  const auto loss_of = [&](const at::Tensor& v) {
    return totals.of(passes::row_losses(targets, v, loss).sum().item<double>());
  };
  if (!(loss_of(centre + spread * t) < loss_of(outputs))) {
    return false;
  }
  map.weight.mul_(t);
  if (map.bias.defined()) {
    map.bias.copy_(centre + (map.bias.to(at::kDouble) - mean) * t);
  }
  return true;
}

}  // namespace torchbcd
