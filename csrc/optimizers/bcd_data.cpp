#include "optimizers/bcd_data.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ne.h>
#include <c10/util/Exception.h>

#include <tuple>

namespace torchbcd {

void BCD::Data::resize_batch(int64_t rows, const std::vector<AffineMap>& maps) {
  stepped = bound.defined() ? Stepped::kBound : Stepped::kNothing;
  has_before = false;
  if (storage_current.u.empty() || storage_current.u.front().size(0) < rows) {
    storage_current = BcdVariables::allocate(rows, maps);
    storage_next = BcdVariables::allocate(rows, maps);
  }
  batch.current = storage_current.narrow(0, rows);
  batch.next = storage_next.narrow(0, rows);
}

void BCD::Data::check_index(const char* name, const at::Tensor& index) const {
  TORCH_CHECK_VALUE(bound.defined(), name, ": step(index=...) needs bound data; call bind(x, y) first");
  for (const WeightRegularizer& s : options.state_regularizer().values()) {
    TORCH_CHECK_VALUE(!s.proximal, name,
                      ": step(index=...) needs state_regularizers that are sums over entries (got '",
                      s.proximal->name, "', a function of all bound rows together)");
  }
  TORCH_CHECK_TYPE(index.scalar_type() == at::kLong || index.scalar_type() == at::kInt, name,
                   ": index must be an int64 tensor (got ", index.scalar_type(), ")");
  TORCH_CHECK_VALUE(index.dim() == 1 && index.size(0) > 0, name,
                    ": index must have shape (m,) with m > 0 (got ", index.sizes(), ")");
  const at::Tensor sorted = std::get<0>(index.to(bound.x.device(), at::kLong).sort());
  const int64_t least = sorted[0].item<int64_t>();
  const int64_t greatest = sorted[-1].item<int64_t>();
  TORCH_CHECK_VALUE(least >= 0 && greatest < bound.rows(), name, ": index must hold rows from 0 to ",
                    bound.rows() - 1, " (got ", least < 0 ? least : greatest, ")");
  const int64_t m = sorted.size(0);
  TORCH_CHECK_VALUE(
      m == 1 || at::ne(sorted.narrow(0, 1, m - 1), sorted.narrow(0, 0, m - 1)).all().item<bool>(), name,
      ": index must not hold a row twice");
}

void BCD::Data::check_rows(const TrainedMlp& mlp, const at::Tensor& rows, const at::Tensor& x,
                           const at::Tensor& y) const {
  const at::Tensor inputs = mlp.inputs("x", x);
  TORCH_CHECK_VALUE(inputs.size(0) == rows.size(0), mlp.name, ": x must have as many rows as index, ",
                    rows.size(0), " (got ", x.sizes(), ")");
  const at::Tensor targets = mlp.targets("y", y, inputs.size(0));
  TORCH_CHECK_VALUE(at::equal(inputs, at::index_select(bound.x, 0, rows)) &&
                        at::equal(targets, at::index_select(bound.y, 0, rows)),
                    mlp.name, ": x and y must be rows `index` of the bound data");
}

}  // namespace torchbcd
