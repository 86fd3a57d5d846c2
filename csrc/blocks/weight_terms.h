// What a WeightRegularizer r is at a weight, its prox, and the nearest weight within its constraints.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// r(W) in float64; infinite where W is not within the constraints.
double regularizer_value(const WeightRegularizer& regularizer, const at::Tensor& weight);

/// r for every row, (m, 1), infinite where the row is outside; without the norms of columns, which no row
/// has.
at::Tensor row_regularizer(const WeightRegularizer& regularizer, const at::Tensor& weight);

/// sum_j |W e_j|, in float64.
double sum_of_column_norms(const at::Tensor& weight);

/// Whether W is within the constraints: its entries are compared with bounds of its own type, and its rows'
/// norms with the radius, as at::linalg_vector_norm(weight, 2, 1), or (weight, 1, 1) and the sum of absolute
/// values, have them in W's own type and in float64. A term of one's own has to be finite.
bool is_inside(const WeightRegularizer& regularizer, const at::Tensor& weight);

/// W <- the nearest weight within the constraints, where is_inside holds to the bit: rows that rounding
/// leaves longer than the radius are shortened by as little as it takes. Where a term of one's own is not
/// finite, its prox for a step so short that it does little else.
void project_(const WeightRegularizer& regularizer, const at::Tensor& weight);

/// The nearest rows to those of a float64 matrix with |w|_1 <= radius, up to rounding: entries shrunk by what
/// leaves that much (Duchi, Shalev-Shwartz, Singer and Chandra, 2008). Those within stay.
at::Tensor nearest_with_sum(const at::Tensor& rows, double radius);

/// W <- argmin over X of times r(X) + 1/2 |X - W|^2. Exact: where there are norms, bounds are at zero alone,
/// and the prox of a norm on a cone is the norm's after the cone's (both commute with lengths). Not for a
/// term of one's own.
void prox_weight_regularizer_(const WeightRegularizer& regularizer, double times, const at::Tensor& weight);

/// r(W) of a term of one's own. Throws a ValueError, beginning with `where`, where it is NaN.
double value_of(const ProximalTerm& term, const at::Tensor& weight, const std::string& where);

/// Its prox, in a tensor of its own. Throws a ValueError, beginning with `where`, where the answer Z is no
/// tensor of W's shape, dtype and device; where it, or r(Z), is not finite; or where it is worse than W is,
/// r(Z) + |Z - W|^2 / (2 step) > r(W), by more than rounding. `value` becomes r(Z).
at::Tensor prox_of(const ProximalTerm& term, const at::Tensor& weight, double step, const std::string& where,
                   double& value);

}  // namespace torchbcd
