#include "blocks/output_scale.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "kernels/passes.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr double kFar = 3;  // from here on t (p - mean) is nearer to the targets than p, whatever they are

bool match_scale_of_one(const at::Tensor& p, const at::Tensor& y, const functors::AnyLoss& loss,
                        const AffineMap& map, const Totals& totals) {
  const at::Tensor outputs = p.to(at::kDouble);
  const at::Tensor targets = y.to(at::kDouble);
  const at::Tensor mean = totals.mean(outputs);
  const bool values = predicts_targets(loss);
  const at::Tensor centre = values && map.bias.defined() ? totals.mean(targets) : at::zeros_like(mean);
  const at::Tensor spread = map.bias.defined() ? outputs - mean : outputs;
  const double found = totals.of(norm_squared(totals.scaled(spread)));
  const double wanted =
      totals.of(values ? norm_squared(totals.scaled(targets - centre))
                       : totals.count_here(outputs.size(0)) * static_cast<double>(outputs.size(1)));
  if (wanted == 0 || !(found > kFar * kFar * wanted)) {
    return false;
  }
  const double t = std::sqrt(wanted / found);
  const auto loss_of = [&](const at::Tensor& v) {
    return totals.of(totals.weighed(passes::row_losses(targets, v, loss)).sum().item<double>());
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

}  // namespace

bool match_output_scale(const at::Tensor& p, const at::Tensor& y, const OutputLoss& loss,
                        const AffineMap& map, const Totals& totals) {
  if (!loss.several()) {
    return match_scale_of_one(p, y, loss.parts.front().loss, map, totals);
  }
  bool any = false;
  for (const OutputLoss::Part& part : loss.parts) {
    const auto rows = [&part](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, part.begin, part.outputs) : t;
    };
    const AffineMap own{rows(map.weight), rows(map.bias)};
    any = match_scale_of_one(part.of(p).contiguous(), part.of(y).contiguous(), part.loss, own, totals) || any;
  }
  return any;
}

}  // namespace torchbcd
