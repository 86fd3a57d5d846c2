#include "blocks/weight_terms.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "blocks/regularized_quadratic.h"
#include "functors/scalar.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

using functors::kInfinity;

at::Tensor norms(const at::Tensor& weight, int64_t dim) {
  return at::linalg_vector_norm(weight, 2, dim, /*keepdim=*/true, at::kDouble);
}

// Of the rows, (m, 1), in float64: the larger one of what the weight's own type and float64 make of it.
at::Tensor measured_norms(const at::Tensor& weight) {
  const at::Tensor alone = weight.contiguous();  // as a model has it: strides may change the order of a sum
  const at::Tensor own = at::linalg_vector_norm(alone, 2, 1, /*keepdim=*/true);
  return at::maximum(own.to(at::kDouble), norms(alone, 1));
}

// What every norm of rows has to be at most: float32 compares with the float32 next to the radius.
double largest_norm(double radius, at::ScalarType type) {
  return std::min(radius, with_bounds_of({.high = radius}, type).high);
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

void shorten_rows_(double radius, at::Tensor weight) {
  if (!std::isfinite(radius)) {
    return;
  }
  const double most = largest_norm(radius, weight.scalar_type());
  double margin =
      unit_of(weight.scalar_type());  // what rounding may add to a norm; doubled until it suffices
  for (;;) {
    const at::Tensor length = measured_norms(weight);
    const at::Tensor longer = length > most;
    if (!longer.any().item<bool>()) {
      return;
    }
    const at::Tensor factor = (length.reciprocal() * (most * (1 - margin))).clamp_max_(1 - margin);
    weight.copy_(at::where(longer, weight.to(at::kDouble) * factor, weight.to(at::kDouble)));
    margin *= 2;
  }
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
  if (outside_signs(r, weight).any().item<bool>()) {
    return false;
  }
  return !std::isfinite(r.radius) ||
         measured_norms(weight).le(largest_norm(r.radius, weight.scalar_type())).all().item<bool>();
}

double regularizer_value(const WeightRegularizer& r, const at::Tensor& weight) {
  if (r.of_entries()) {
    return regularizer_value(r.entries, weight);
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
    value.masked_fill_(measured_norms(weight) > largest_norm(r.radius, weight.scalar_type()), kInfinity);
  }
  return value;
}

void project_(const WeightRegularizer& r, const at::Tensor& weight) {
  if (weight.numel() > 0 && r.constrains()) {
    clamp_columns_(r, weight);
    shorten_rows_(r.radius, weight);
  }
}

void prox_weight_regularizer_(const WeightRegularizer& r, double times, const at::Tensor& weight) {
  if (weight.numel() == 0) {
    return;
  }
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
  shorten_rows_(r.radius, weight);
}

}  // namespace torchbcd
