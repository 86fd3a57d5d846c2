#include "blocks/input_metric.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros_like.h>

#include <utility>

namespace torchbcd {
namespace {

constexpr double kFarOff = 10;     // mean over spread, root mean squares
constexpr double kFarApart = 100;  // largest over median spread
constexpr double kLeast = 1e-6;    // of the largest spread, below which a column counts as constant

}  // namespace

InputMetric::InputMetric(const at::Tensor& x, bool centred) {
  if (x.size(0) < 2) {
    return;
  }
  const auto [variance, mean] = at::var_mean(x, at::IntArrayRef{0}, /*unbiased=*/false);
  const at::Tensor spread = variance.to(at::kDouble).sqrt();
  const at::Tensor offset = mean.to(at::kDouble);
  const auto largest = spread.max().item<double>();
  const auto root_mean_square = [](const at::Tensor& t) { return t.square().mean().sqrt().item<double>(); };
  const bool far_off = centred && root_mean_square(offset) > kFarOff * root_mean_square(spread);
  const bool far_apart = largest > kFarApart * spread.median().item<double>();
  if (!(largest > 0) || !(far_off || far_apart)) {
    return;
  }
  mean_ = centred ? mean : at::zeros_like(mean);
  scale_ =
      (far_apart ? spread.masked_fill(spread.lt(kLeast * largest), largest) : spread.max().expand_as(spread))
          .to(x.scalar_type());
}

at::Tensor InputMetric::standardized(const at::Tensor& x) const { return (x - mean_).div_(scale_); }

void InputMetric::to_inputs_(const AffineMap& step) const {
  step.weight.div_(scale_);
  if (step.bias.defined()) {
    step.bias.sub_(at::mv(step.weight, mean_));
  }
}

}  // namespace torchbcd
