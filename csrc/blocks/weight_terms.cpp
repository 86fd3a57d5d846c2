#include "blocks/weight_terms.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "blocks/regularized_quadratic.h"
#include "functors/scalar.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "linalg/scratch_memory.h"

namespace torchbcd {
namespace {

using functors::kInfinity;

constexpr double kShortStep = 1e-6;  // of a prox that is to do little more than go where r is finite

at::Tensor norms(const at::Tensor& weight, int64_t dim) {
  return at::linalg_vector_norm(weight, 2, dim, /*keepdim=*/true, at::kDouble);
}

// Of the rows, (m, 1), in float64: the largest one of what the weight's own type and float64 make of it.
at::Tensor measured_norms(const at::Tensor& weight, int p) {
  const at::Tensor alone = weight.contiguous();  // as a model has it: strides may change the order of a sum
  at::Tensor own = at::linalg_vector_norm(alone, p, 1, /*keepdim=*/true);
  if (p == 1) {
    own = at::maximum(own, alone.abs().sum(1, /*keepdim=*/true));
  }
  return at::maximum(own.to(at::kDouble), at::linalg_vector_norm(alone, p, 1, /*keepdim=*/true, at::kDouble));
}

// What every norm of rows has to be at most: float32 compares with the float32 next to the radius.
double largest_norm(double radius, at::ScalarType type) {
  return std::min(radius, with_bounds_of({.high = radius}, type).high);
}

// Which rows, (m, 1), have a p-norm above the radius.
at::Tensor too_long(const at::Tensor& weight, double radius, int p) {
  return measured_norms(weight, p).gt(largest_norm(radius, weight.scalar_type()));
}

at::Tensor outside_signs(const WeightRegularizer& r, const at::Tensor& weight) {
  const ColumnBounds bounds = column_bounds(r, weight.size(1), weight.scalar_type());
  const at::Tensor values = weight.to(at::kDouble);
  return values.lt(bounds.on(weight.device(), bounds.low))
      .logical_or_(values.gt(bounds.on(weight.device(), bounds.high)));
}

void clamp_columns_(const WeightRegularizer& r, at::Tensor weight) {
  const ColumnBounds bounds = column_bounds(r, weight.size(1), weight.scalar_type());
  if (bounds.any()) {
    weight.clamp_(bounds.on(weight.device(), bounds.low).to(weight.scalar_type()),
                  bounds.on(weight.device(), bounds.high).to(weight.scalar_type()));
  }
}

void shorten_rows_(double radius, int p, at::Tensor weight) {
  if (!std::isfinite(radius)) {
    return;
  }
  const double most = largest_norm(radius, weight.scalar_type());
  double margin =
      unit_of(weight.scalar_type());  // what rounding may add to a norm; doubled until it suffices
  for (;;) {
    const at::Tensor length = measured_norms(weight, p);
    const at::Tensor longer = length > most;
    if (!longer.any().item<bool>()) {
      return;
    }
    const at::Tensor factor = (length.reciprocal() * (most * (1 - margin))).clamp_max_(1 - margin);
    weight.copy_(at::where(longer, weight.to(at::kDouble) * factor, weight.to(at::kDouble)));
    margin *= 2;
  }
}

// Rows <- the nearest ones with |w|_1 <= radius.
void shrink_to_sum_(double radius, at::Tensor weight) {
  if (!std::isfinite(radius)) {
    return;
  }
  const at::Tensor rows = too_long(weight, radius, 1).squeeze(1).nonzero().squeeze(1);
  if (rows.numel() > 0) {
    const at::Tensor w = weight.index_select(0, rows).to(at::kDouble);
    const double most = largest_norm(radius, weight.scalar_type());
    weight.index_copy_(0, rows, nearest_with_sum(w, most).to(weight.scalar_type()));
  }
  shorten_rows_(radius, 1, weight);  // by rounding
}

// x <- x max(0, 1 - times/|x|) for every row or column.
void shrink_(at::Tensor weight, int64_t dim, double times) {
  const at::Tensor length = norms(weight, dim);
  const at::Tensor factor = at::where(length > times, 1 - times / length, 0);
  weight.copy_(weight.to(at::kDouble) * factor);
}

}  // namespace

double sum_of_column_norms(const at::Tensor& weight) { return norms(weight, 0).sum().item<double>(); }

bool is_inside(const WeightRegularizer& r, const at::Tensor& weight) {
  if (weight.numel() == 0 || !r.constrains()) {
    return true;
  }
  if (r.proximal) {
    return std::isfinite(value_of(*r.proximal, weight, "torchbcd"));
  }
  if (outside_signs(r, weight).any().item<bool>()) {
    return false;
  }
  const auto holds = [&](double radius, int p) {
    return !std::isfinite(radius) || !too_long(weight, radius, p).any().item<bool>();
  };
  return holds(r.radius, 2) && holds(r.l1_radius, 1);
}

double regularizer_value(const WeightRegularizer& r, const at::Tensor& weight) {
  if (r.of_entries()) {
    return regularizer_value(r.entries, weight);
  }
  if (r.proximal) {
    return value_of(*r.proximal, weight, "torchbcd") + regularizer_value({.l2 = r.entries.l2}, weight);
  }
  if (!is_inside(r, weight)) {
    return kInfinity;
  }
  double value = regularizer_value({.l1 = r.entries.l1, .l2 = r.entries.l2}, weight);
  if (r.by_input != 0) {
    value += r.by_input * sum_of_column_norms(weight);
  }
  if (r.by_unit != 0) {
    value += r.by_unit * norms(weight, 1).sum().item<double>();
  }
  return value;
}

at::Tensor row_regularizer(const WeightRegularizer& r, const at::Tensor& weight) {
  at::Tensor value = row_regularizer({.l1 = r.entries.l1, .l2 = r.entries.l2}, weight);
  if (weight.numel() == 0) {
    return value;
  }
  if (r.by_unit != 0) {
    value.add_(norms(weight, 1), r.by_unit);
  }
  if (r.constrains()) {
    value.masked_fill_(outside_signs(r, weight).any(1, /*keepdim=*/true), kInfinity);
  }
  if (std::isfinite(r.radius)) {
    value.masked_fill_(too_long(weight, r.radius, 2), kInfinity);
  }
  if (r.bounds_sums()) {
    value.masked_fill_(too_long(weight, r.l1_radius, 1), kInfinity);
  }
  return value;
}

at::Tensor nearest_with_sum(const at::Tensor& rows, double radius) {
  const at::Tensor sorted = std::get<0>(rows.abs().sort(1, /*descending=*/true));
  const at::Tensor sums = sorted.cumsum(1);
  const at::Tensor shares = (sums - radius) / at::arange(1, rows.size(1) + 1, rows.options());
  const at::Tensor count = (sorted > shares).sum(1, /*keepdim=*/true);
  const at::Tensor times = shares.gather(1, (count - 1).clamp_min_(0)).clamp_min_(0);
  return rows - rows.clamp(-times, times);
}

void project_(const WeightRegularizer& r, const at::Tensor& weight) {
  if (weight.numel() == 0 || !r.constrains()) {
    return;
  }
  if (!r.proximal) {
    clamp_columns_(r, weight);
    shorten_rows_(r.radius, 2, weight);
    shrink_to_sum_(r.l1_radius, weight);
  } else if (!is_inside(r, weight)) {
    double value = 0;
    at::Tensor to = weight;
    to.copy_(prox_of(*r.proximal, weight, kShortStep, "torchbcd", value));
  }
}

void prox_weight_regularizer_(const WeightRegularizer& r, double times, const at::Tensor& weight) {
  if (weight.numel() == 0) {
    return;
  }
  TORCH_INTERNAL_ASSERT(!r.proximal);
  passes::prox_regularizer(weight, r.entries, times, weight);
  if (r.of_entries()) {
    return;
  }
  // A squared norm scales what comes before and after it alike: t l2/2 |x|^2 with a norm's weight t s is the
  // norm's prox for t s / (1 + t l2) after the squared norm's.
  clamp_columns_(r, weight);
  const double norm_times = times / (1 + times * r.entries.l2);
  if (r.by_input != 0) {
    shrink_(weight, 0, norm_times * r.by_input);
  }
  if (r.by_unit != 0) {
    shrink_(weight, 1, norm_times * r.by_unit);
  }
  shorten_rows_(r.radius, 2, weight);
  shrink_to_sum_(r.l1_radius, weight);
}

double value_of(const ProximalTerm& term, const at::Tensor& weight, const std::string& where) {
  const ScratchMemory::Use usual(nullptr);
  const double value = term.value(weight.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true));
  TORCH_CHECK_VALUE(!std::isnan(value), where, ": the value of the regulariser '", term.name,
                    "' must be a number or infinity (got nan)");
  return value;
}

at::Tensor prox_of(const ProximalTerm& term, const at::Tensor& weight, double step, const std::string& where,
                   double& value) {
  constexpr double kRoundings = 100;  // units in the last place that an exact prox may be off
  const auto complain = [&](const char* what) {
    return c10::str(where, ": the prox of '", term.name, "' must ", what);
  };
  const ScratchMemory::Use usual(nullptr);
  at::Tensor z = term.prox(weight.clone(), step);
  TORCH_CHECK_VALUE(
      z.defined() && z.sizes() == weight.sizes() && z.scalar_type() == weight.scalar_type() &&
          z.device() == weight.device() && z.layout() == at::kStrided,
      complain("return a tensor like its argument, "), weight.scalar_type(), " of shape ", weight.sizes(),
      " (got ", z.defined() ? c10::str(z.scalar_type(), " of shape ", z.sizes(), " on ", z.device()) : "none",
      ")");
  z = z.detach().clone(at::MemoryFormat::Contiguous);
  TORCH_CHECK_VALUE(all_finite(z), complain("be finite (got NaN or infinity)"));
  value = value_of(term, z, where);
  TORCH_CHECK_VALUE(std::isfinite(value), complain("be where the regulariser is finite (its value there is "),
                    value, ")");
  const double at_weight = value_of(term, weight, where);
  if (std::isfinite(at_weight)) {
    const at::Tensor w = weight.to(at::kDouble), wide = z.to(at::kDouble);
    const double distance = std::sqrt(norm_squared(wide - w));
    const double unit = kRoundings * unit_of(weight.scalar_type());
    const double longest = std::sqrt(std::max(norm_squared(w), norm_squared(wide)));
    const double worse = value + distance * distance / (2 * step) - at_weight;
    const double rounding =
        unit * (std::abs(value) + std::abs(at_weight)) + unit * longest * (distance + unit * longest) / step;
    TORCH_CHECK_VALUE(worse <= rounding,
                      complain("be no worse than its argument W in r(Z) + |Z - W|^2 / (2 step) (got "),
                      at_weight + worse, " and ", at_weight, " for the step ", step, ")");
  }
  return z;
}

}  // namespace torchbcd
