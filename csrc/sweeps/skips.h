// Skip connections, x + branch(x): layer `to` has the products V W^T + 1 b^T + T, with T the values of an
// earlier layer, or the inputs. In the lifted problem U of `to` is compared with that sum, so that T, a
// variable, is read by two layers or more: the one behind it, by its weights, and `to`, as it is.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "torchbcd/skip.h"

namespace torchbcd {

/// Those that end with layer l.
std::vector<Skip> skips_into(const std::vector<Skip>& skips, size_t l);

/// Those that begin with V of layer l, or with its U.
std::vector<Skip> skips_from(const std::vector<Skip>& skips, size_t l, bool activated);

/// How many layers of a branch follow layer l in it; none where it is in no branch. Of several branches
/// around it the innermost one counts.
std::optional<size_t> layers_to_end_of_branch(const std::vector<Skip>& skips, size_t l);

/// The values that a skip adds. u and v hold those of each layer.
const at::Tensor& skipped(const Skip& skip, const at::Tensor& x, const std::vector<at::Tensor>& u,
                          const std::vector<at::Tensor>& v);

/// out += times T, for each skip into layer l.
void add_skipped_(const std::vector<Skip>& skips, size_t l, const at::Tensor& x,
                  const std::vector<at::Tensor>& u, const std::vector<at::Tensor>& v, const at::Tensor& out,
                  double times = 1);

}  // namespace torchbcd
