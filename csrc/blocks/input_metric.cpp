#include "blocks/input_metric.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/std_mean.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <utility>

namespace torchbcd {
namespace {

constexpr double kFarOff = 10;     // mean over spread, root mean squares
constexpr double kFarApart = 100;  // largest over median spread, of columns that vary
constexpr int64_t kSample = 64;    // rows that tell which metric it is
constexpr double kLeast = 1e-6;    // of the largest spread, below which a column counts as constant

}  // namespace

InputMetric::InputMetric(const at::Tensor& x, bool centred) {
  if (x.size(0) < 2) {
    return;
  }
  const auto spread_and_mean = [](const at::Tensor& rows) {
    auto [spread, mean] = at::std_mean(rows, at::IntArrayRef{0}, /*unbiased=*/false);
    return std::pair{spread.to(at::kDouble), mean};
  };
  const auto mean_square = [](const at::Tensor& t) { return t.to(at::kDouble).square().mean().item<double>(); };
  const auto [seen, centre] = spread_and_mean(x.narrow(0, 0, std::min(x.size(0), kSample)));
  const bool far_off = centred && mean_square(centre) > kFarOff * kFarOff * mean_square(seen);
  const at::Tensor varying = seen.masked_select(seen.gt(seen.max() * kLeast));
  const bool far_apart = varying.numel() > 0 && varying.max().item<double>() > kFarApart * varying.median().item<double>();
  if (!far_off && !far_apart) {
    return;
  }
  const auto [spread, mean] = spread_and_mean(x);
  const at::Tensor largest = spread.max();
  if (largest.item<double>() > 0) {
    mean_ = centred ? mean : at::zeros_like(mean);
    scale_ = (far_apart ? at::where(spread.lt(largest * kLeast), largest, spread) : largest.expand_as(spread))
                 .to(x.scalar_type());
  }
}

at::Tensor InputMetric::standardized(const at::Tensor& x) const { return (x - mean_).div_(scale_); }

void InputMetric::to_inputs_(const AffineMap& step) const {
  step.weight.div_(scale_);
  if (step.bias.defined()) {
    step.bias.sub_(at::mv(step.weight, mean_));
  }
}

}  // namespace torchbcd
