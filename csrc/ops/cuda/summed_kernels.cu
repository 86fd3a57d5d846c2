#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "ops/kernels.h"
#include "ops/summed_dispatch.h"

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
                              Arrays<T, Functor::Result::outputs, Functor::inputs> arrays, SumLayout layout,
                              const double* scale, std::index_sequence<In...>) {
  using Result = typename Functor::Result;
  __shared__ double shared[Result::sums][kThreads];
  double total[Result::sums] = {};
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * layout.chunk;
  const int64_t end = begin + layout.chunk < n ? begin + layout.chunk : n;
  if constexpr (requires { f.scale; }) {
    f.scale = static_cast<T>(*scale);
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const Result result = f(arrays.in[In][i]...);
    for (int t = 0; t < Result::outputs; ++t) {
      arrays.out[t][i] = result.out[t];
    }
    for (int k = 0; k < Result::sums; ++k) {
      total[k] += static_cast<double>(result.sum[k]);
    }
  }
  for (int k = 0; k < Result::sums; ++k) {
    shared[k][threadIdx.x] = total[k];
  }
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) {
      for (int k = 0; k < Result::sums; ++k) {
        shared[k][threadIdx.x] += shared[k][threadIdx.x + width];
      }
    }
  }
  if (threadIdx.x == 0) {
    for (int k = 0; k < Result::sums; ++k) {
      layout.partial[static_cast<int64_t>(blockIdx.x) * Result::sums + k] = shared[k][0];
    }
  }
}

struct Launch {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const SumLayout& layout, const Functor& f,
                  const double* scale = nullptr) {
    constexpr int outputs = Functor::Result::outputs;
    const int64_t n = iter.numel();
    if (n == 0) {
      return;
    }
    const c10::cuda::CUDAGuard guard(iter.device());
    Arrays<T, outputs, Functor::inputs> arrays = {};
    for (int t = 0; t < outputs; ++t) {
      arrays.out[t] = static_cast<T*>(iter.data_ptr(t));
    }
    for (int t = 0; t < Functor::inputs; ++t) {
      arrays.in[t] = static_cast<const T*>(iter.data_ptr(outputs + t));
    }
    const unsigned chunks = static_cast<unsigned>((n + layout.chunk - 1) / layout.chunk);
    summed_chunks<T, Functor><<<chunks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        f, n, arrays, layout, scale, std::make_index_sequence<Functor::inputs>{});
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

using Kernels = SummedKernels<Launch>;

const SumKernel::OnCUDA register_sum_of_squares(sum_of_squares, &Kernels::sum_of_squares);
const SumKernel::OnCUDA register_difference(difference, &Kernels::difference);
const ScaledSumKernel::OnCUDA register_extrapolated(extrapolated_difference,
                                                    &Kernels::extrapolated_difference);
const ScaledSumKernel::OnCUDA register_residual_step(residual_step, &Kernels::residual_step);
const BoxKernel::OnCUDA register_preimage_projection(preimage_projection, &Kernels::preimage_projection);
const ImageStepKernel::OnCUDA register_image_step(image_step, &Kernels::image_step);
const JointStepKernel::OnCUDA register_joint_step(joint_step, &Kernels::joint_step);
const RelaxedResidualKernel::OnCUDA register_relaxed_residual(relaxed_residual, &Kernels::relaxed_residual);
const StateDirectionKernel::OnCUDA register_state_direction(state_direction, &Kernels::state_direction);
const StateMoveKernel::OnCUDA register_state_move(state_move, &Kernels::state_move);

}  // namespace
}  // namespace torchbcd::kernels
