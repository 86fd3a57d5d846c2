// The entries of passes.h that are more than one launch.
#include "kernels/passes.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>

namespace torchbcd::passes {

at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const functors::AnyLoss& loss) {
  if (functors::couples_row(loss)) {
    at::Tensor out = at::empty({v.size(0), 1}, v.options());
    kernels::rows<functors::RowLossValue>({out, y, v}, loss);
    return out;
  }
  const at::Tensor entries = at::empty_like(v);
  kernels::entries<functors::LossValue>({entries}, {y, v}, loss);
  return entries.sum(1, /*keepdim=*/true);
}

at::Tensor gradient_lipschitz(const at::Tensor& y, const functors::AnyLoss& loss) {
  if (functors::couples_row(loss)) {
    at::Tensor out = at::empty({y.size(0), 1}, y.options());
    kernels::rows<functors::RowLossGradientLipschitz>({out, y, y}, loss);
    return out;
  }
  return kernels::entries<functors::LossGradientLipschitz>({at::Tensor()}, {y}, loss)
      .amax(1, /*keepdim=*/true);
}

std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) {
    return {};
  }
  std::vector<at::Tensor> sums;
  for (const at::Tensor& t : tensors) {
    sums.push_back(at::sum(kernels::chunk_sums<functors::SumOfSquares>(functors::kSumChunk, {}, {t}), 0));
  }
  const at::Tensor fetched = at::stack(sums).cpu();
  const double* data = fetched.const_data_ptr<double>();
  return {data, data + fetched.numel()};
}

}  // namespace torchbcd::passes
