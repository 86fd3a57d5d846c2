// The passes that also measure on a GPU.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "functors/summed.h"
#include "kernels/instantiate.h"

namespace torchbcd::kernels {
namespace {

constexpr int kThreads = 256;

template <typename T, int outputs, int inputs>
struct Arrays {
  T* out[outputs > 0 ? outputs : 1];
  const T* in[inputs];
};

// One block of threads for each chunk. Its sums are added up in a fixed order, so that they are the same
// every time.
template <typename T, typename Functor, size_t... In>
__global__ void summed_chunks(Functor f, int64_t n,
                              Arrays<T, Functor::Pass::outputs, Functor::Pass::inputs> arrays,
                              functors::Summed::Layout layout, const double* scale,
                              std::index_sequence<In...>) {
  using Pass = typename Functor::Pass;
  __shared__ double shared[Pass::sums][kThreads];
  double total[Pass::sums] = {};
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * layout.chunk;
  const int64_t end = begin + layout.chunk < n ? begin + layout.chunk : n;
  if constexpr (Pass::scale_on_device) {
    f.scale = static_cast<T>(*scale);
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const typename Functor::Result result = f(arrays.in[In][i]...);
    for (int t = 0; t < Pass::outputs; ++t) {
      arrays.out[t][i] = result.out[t];
    }
    for (int k = 0; k < Pass::sums; ++k) {
      total[k] += static_cast<double>(result.sum[k]);
    }
  }
  for (int k = 0; k < Pass::sums; ++k) {
    shared[k][threadIdx.x] = total[k];
  }
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) {
      for (int k = 0; k < Pass::sums; ++k) {
        shared[k][threadIdx.x] += shared[k][threadIdx.x + width];
      }
    }
  }
  if (threadIdx.x == 0) {
    for (int k = 0; k < Pass::sums; ++k) {
      layout.partial[static_cast<int64_t>(blockIdx.x) * Pass::sums + k] = shared[k][0];
    }
  }
}

}  // namespace

template <>
struct Loop<Cuda, functors::Summed> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Summed::Layout& layout, const Functor& f,
                  const double* scale = nullptr) {
    using Pass = typename Functor::Pass;
    const int64_t n = iter.numel();
    if (n == 0) {
      return;
    }
    const c10::cuda::CUDAGuard guard(iter.device());
    Arrays<T, Pass::outputs, Pass::inputs> arrays = {};
    for (int t = 0; t < Pass::outputs; ++t) {
      arrays.out[t] = static_cast<T*>(iter.data_ptr(t));
    }
    for (int t = 0; t < Pass::inputs; ++t) {
      arrays.in[t] = static_cast<const T*>(iter.data_ptr(Pass::outputs + t));
    }
    const unsigned chunks = static_cast<unsigned>((n + layout.chunk - 1) / layout.chunk);
    summed_chunks<T, Functor><<<chunks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        f, n, arrays, layout, scale, std::make_index_sequence<Pass::inputs>{});
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

TORCHBCD_SUMMED_PASSES(TORCHBCD_INSTANTIATE, Cuda)

}  // namespace torchbcd::kernels
