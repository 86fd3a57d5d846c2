// How an entry of passes.h runs a functor of csrc/functors over tensors: the device, the data's type and the
// activation or loss chosen are looked at here, once for all passes.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include <algorithm>
#include <array>

#include "kernels/kernel.h"

namespace torchbcd::kernels {

/// Whether an iterator's data lie on a GPU; an error where this build has no kernels for their device.
bool on_cuda(const at::TensorIteratorBase& iterator);

/// Runs a functor, with the activation or the loss chosen (for functors that have one) and its parameters.
template <template <typename, typename> class Functor, typename Layout, typename... Arguments>
void run(at::TensorIteratorBase& iterator, const Layout& layout, const Arguments&... arguments) {
  constexpr bool chooses = !std::is_same_v<typename PassOf<Functor>::Alternatives, functors::NoChoice>;
  const auto call = [&](auto kernel) {
    if constexpr (chooses) {
      kernel(iterator, layout, arguments...);
    } else {
      kernel(iterator, layout, functors::NoChoice::Variant(), arguments...);
    }
  };
  if (!on_cuda(iterator)) {
    call(Kernel<Functor, Cpu>::run);
  } else {
#if defined(TORCHBCD_WITH_CUDA)
    call(Kernel<Functor, Cuda>::run);
#endif
  }
}

using Visit = c10::function_ref<void(at::TensorIteratorBase&)>;

/// Calls f(iterator over outputs and inputs), which broadcast and may be strided. Returns the first output,
/// newly allocated where an undefined one was given.
at::Tensor with_iterator(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs, Visit f);

/// Calls f(iterator, layout) over contiguous tensors of one shape; returns the sums of every chunk of `chunk`
/// entries, (chunks, sums).
at::Tensor with_chunks(int64_t chunk, int64_t sums, at::ArrayRef<at::Tensor> outputs,
                       at::ArrayRef<at::Tensor> inputs,
                       c10::function_ref<void(at::TensorIteratorBase&, const functors::Summed::Layout&)> f);

/// The sums of the columns of (chunks, sums), fetched.
void fetch_sums(const at::Tensor& chunks, double* sums);

/// outputs = Functor(inputs) entry by entry; returns the first output, which is allocated where it is
/// undefined.
template <template <typename, typename> class Functor, typename... Arguments>
at::Tensor entries(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs,
                   const Arguments&... arguments) {
  return with_iterator(outputs, inputs, [&](at::TensorIteratorBase& iterator) {
    run<Functor>(iterator, functors::Entries::Layout(), arguments...);
  });
}

/// The sums of every chunk of entries, (chunks, sums), float64, on the data's device.
template <template <typename, typename> class Functor, typename... Arguments>
at::Tensor chunk_sums(int64_t chunk, at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs,
                      const Arguments&... arguments) {
  return with_chunks(chunk, PassOf<Functor>::sums, outputs, inputs,
                     [&](at::TensorIteratorBase& iterator, const functors::Summed::Layout& layout) {
                       run<Functor>(iterator, layout, arguments...);
                     });
}

/// The sums over all entries.
template <template <typename, typename> class Functor, typename... Arguments>
std::array<double, PassOf<Functor>::sums> sums(at::ArrayRef<at::Tensor> outputs,
                                               at::ArrayRef<at::Tensor> inputs,
                                               const Arguments&... arguments) {
  std::array<double, PassOf<Functor>::sums> total;
  fetch_sums(chunk_sums<Functor>(functors::kSumChunk, outputs, inputs, arguments...), total.data());
  return total;
}

/// One sum for each row, (n, 1).
template <template <typename, typename> class Functor, typename... Arguments>
at::Tensor row_sums(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs,
                    const Arguments&... arguments) {
  static_assert(PassOf<Functor>::sums == 1);
  const int64_t columns = std::max<int64_t>(1, inputs.front().size(1));
  return chunk_sums<Functor>(columns, outputs, inputs, arguments...);
}

/// Functor on every row of `matrices`: out, target, centre and, for some, the rows' weights.
template <template <typename, typename> class Functor, typename... Arguments>
void rows(at::ArrayRef<at::Tensor> matrices, const Arguments&... arguments) {
  const at::Tensor& out = matrices[0];
  const at::Tensor& target = matrices[1];
  const at::Tensor& centre = matrices[2];
  if (centre.numel() == 0) {
    return;
  }
  std::vector<at::Tensor> first_columns;
  for (const at::Tensor& matrix : matrices) {
    first_columns.push_back(matrix.select(1, 0));
  }
  const functors::Rows::Layout layout{centre.size(1), out.stride(1), target.stride(1), centre.stride(1)};
  with_iterator({first_columns.front()}, at::ArrayRef<at::Tensor>(first_columns).slice(1),
                [&](at::TensorIteratorBase& iterator) { run<Functor>(iterator, layout, arguments...); });
}

}  // namespace torchbcd::kernels
