#include "kernels/launch.h"

#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <c10/util/Exception.h>

namespace torchbcd::kernels {
namespace {

at::TensorIterator iterator_over(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs) {
  at::TensorIteratorConfig config;
  config.resize_outputs(false);
  for (const at::Tensor& output : outputs) {
    config.add_owned_output(output);
  }
  for (const at::Tensor& input : inputs) {
    config.add_owned_const_input(input);
  }
  return config.build();
}

}  // namespace

bool on_cuda(const at::TensorIteratorBase& iterator) {
  const c10::DeviceType device = iterator.device_type();
#if defined(TORCHBCD_WITH_CUDA)
  const bool cuda = device == c10::DeviceType::CUDA;
#else
  const bool cuda = false;
#endif
  TORCH_CHECK_NOT_IMPLEMENTED(cuda || device == c10::DeviceType::CPU,
                              "torchbcd: this build has no kernels for ", device, " tensors");
  return cuda;
}

at::Tensor with_iterator(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs, Visit f) {
  at::TensorIterator iterator = iterator_over(outputs, inputs);
  f(iterator);
  return iterator.output();
}

at::Tensor with_chunks(int64_t chunk, int64_t sums, at::ArrayRef<at::Tensor> outputs,
                       at::ArrayRef<at::Tensor> inputs,
                       c10::function_ref<void(at::TensorIteratorBase&, const functors::Summed::Layout&)> f) {
  // An iterator must have an output; where a pass has none, nothing is written to it.
  at::TensorIterator iterator = iterator_over(outputs.empty() ? inputs.slice(0, 1) : outputs, inputs);
  TORCH_INTERNAL_ASSERT(iterator.is_contiguous());
  const int64_t chunks = (iterator.numel() + chunk - 1) / chunk;
  at::Tensor partial = at::empty({chunks, sums}, inputs.front().options().dtype(at::kDouble));
  if (chunks > 0) {
    f(iterator, {chunk, partial.mutable_data_ptr<double>()});
  }
  return partial;
}

void fetch_sums(const at::Tensor& chunks, double* sums) {
  const at::Tensor result = at::sum(chunks, 0).cpu();
  std::copy_n(result.const_data_ptr<double>(), result.numel(), sums);
}

}  // namespace torchbcd::kernels
