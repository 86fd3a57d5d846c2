#include "blocks/input_metric.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/std_mean.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <tuple>

#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr double kFarOff = 10;     // mean over spread, root mean squares
constexpr double kFarApart = 100;  // largest over median spread, of columns that vary
constexpr int64_t kSample = 64;    // rows that tell which metric it is
constexpr double kUnits = 8;  // in the last place of a column's mean, that a spread is no more than rounding
constexpr double kLeast = 1e-6;  // of the largest spread, below which a column counts as constant

struct Columns {
  at::Tensor spread;  // float64
  at::Tensor mean;
};

std::tuple<at::Tensor, at::Tensor> spread_and_mean(const at::Tensor& x, const Totals& totals) {
  if (totals.plain()) {
    return at::std_mean(x, at::IntArrayRef{0}, /*unbiased=*/false);
  }
  const at::Tensor mean = totals.mean(x);
  const at::Tensor squares = (x - mean).to(at::kDouble).square();
  return {totals.mean(squares).sqrt().to(x.scalar_type()), mean};
}

Columns columns_of(const at::Tensor& x, const Totals& totals) {
  const auto [spread, mean] = spread_and_mean(x, totals);
  const double unit = unit_of(x.scalar_type());
  // Rounding gives equal entries a spread.
  return {spread.to(at::kDouble).masked_fill_(spread.le(mean.abs() * (kUnits * unit)), 0), mean};
}

double mean_square(const at::Tensor& t) { return t.to(at::kDouble).square().mean().item<double>(); }

}  // namespace

bool poorly_scaled(const at::Tensor& x, bool bias, const Totals& totals) {
  if (!totals.several() && x.size(0) < 2) {
    return false;
  }
  const Columns seen = columns_of(totals.plain() ? x.narrow(0, 0, std::min(x.size(0), kSample)) : x, totals);
  const at::Tensor varying = seen.spread.masked_select(seen.spread.gt(seen.spread.max() * kLeast));
  if (varying.numel() == 0) {
    return false;
  }
  const bool far_off = mean_square(seen.mean) > kFarOff * kFarOff * mean_square(seen.spread);
  return (bias && far_off) || varying.max().item<double>() > kFarApart * varying.median().item<double>();
}

void shrink_centred_(const AffineMap& map, double part, const at::Tensor& x, const Totals& totals) {
  if (map.bias.defined()) {
    at::Tensor bias = map.bias;
    bias.add_(at::mv(map.weight, totals.mean(x)), part);
    at::Tensor(map.weight).mul_(1 - part);
  }
}

InputMetric::InputMetric(const at::Tensor& x, bool centred, const Totals& totals) {
  const Columns columns = columns_of(x, totals);
  const auto found = columns.spread.max().item<double>();
  const double largest = found > 0 ? found : 1;  // of rows that do not vary at all
  mean_ = centred ? columns.mean : at::zeros_like(columns.mean);
  scale_ = columns.spread.masked_fill(columns.spread.lt(largest * kLeast), largest).to(x.scalar_type());
}

at::Tensor InputMetric::standardized(const at::Tensor& x) const { return (x - mean_).div_(scale_); }

void InputMetric::to_inputs_(const AffineMap& step) const {
  step.weight.div_(scale_);
  if (step.bias.defined()) {
    step.bias.sub_(at::mv(step.weight, mean_));
  }
}

}  // namespace torchbcd
