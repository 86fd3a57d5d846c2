// The loops over entries and over rows on a GPU. The passes are instantiated in several files beside this
// one, which compile side by side: together they take nvcc minutes.
#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <thrust/tuple.h>
#include <ATen/native/cuda/Loops.cuh>

#include "functors/updates.h"
#include "kernels/instantiate.h"

namespace torchbcd::kernels {
namespace {

// gpu_kernel reads a functor's argument and result types off one device operator().
template <typename T, typename Functor, int inputs>
struct Single;

template <typename T, typename Functor>
struct Single<T, Functor, 1> {
  Functor functor;
  __device__ T operator()(T a) const { return functor(a); }
};

template <typename T, typename Functor>
struct Single<T, Functor, 2> {
  Functor functor;
  __device__ T operator()(T a, T b) const { return functor(a, b); }
};

template <typename T, typename Functor>
struct Single<T, Functor, 3> {
  Functor functor;
  __device__ T operator()(T a, T b, T c) const { return functor(a, b, c); }
};

template <typename T>
__host__ __device__ thrust::tuple<T, T> as_tuple(const functors::Pair<T>& pair) {
  return {pair.first, pair.second};
}

// Kernels of two results want an extended lambda, which must not stand inside a generic one.
template <typename T, typename Functor>
void launch_pair(at::TensorIteratorBase& iter, const Functor& functor) {
  constexpr int inputs = Functor::Pass::inputs;
  if constexpr (inputs == 1) {
    at::native::gpu_kernel_multiple_outputs(
        iter, [functor] __host__ __device__(T a) -> thrust::tuple<T, T> { return as_tuple(functor(a)); });
  } else if constexpr (inputs == 2) {
    at::native::gpu_kernel_multiple_outputs(
        iter,
        [functor] __host__ __device__(T a, T b) -> thrust::tuple<T, T> { return as_tuple(functor(a, b)); });
  } else {
    static_assert(inputs == 3);
    at::native::gpu_kernel_multiple_outputs(
        iter, [functor] __host__ __device__(T a, T b, T c) -> thrust::tuple<T, T> {
          return as_tuple(functor(a, b, c));
        });
  }
}

// Every row has a thread: the iterator's elements are the first entries of the rows, and a kernel of
// references to them finds the rest by the strides.
template <typename T>
struct RowPointers {
  char* data[4];
  int64_t strides[4];  // bytes from row to row
};

constexpr int kRowThreads = 128;

template <typename T, typename Functor>
__global__ void each_row(RowPointers<T> rows, int64_t n, functors::Rows::Layout layout, Functor functor) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    T* row[4];
    for (int t = 0; t < 4; ++t) {
      row[t] = reinterpret_cast<T*>(rows.data[t] + i * rows.strides[t]);
    }
    functor(row, layout);
  }
}

}  // namespace

template <>
struct Loop<Cuda, functors::Entries> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Entries::Layout&, const Functor& functor) {
    using Pass = typename Functor::Pass;
    const c10::cuda::CUDAGuard guard(iter.device());
    if constexpr (Pass::outputs == 1) {
      at::native::gpu_kernel(iter, Single<T, Functor, Pass::inputs>{functor});
    } else {
      static_assert(Pass::outputs == 2);
      launch_pair<T>(iter, functor);
    }
  }
};

template <>
struct Loop<Cuda, functors::Rows> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Rows::Layout& layout,
                  const Functor& functor) {
    const int64_t n = iter.numel();
    if (n == 0) {
      return;
    }
    const c10::cuda::CUDAGuard guard(iter.device());
    RowPointers<T> rows = {};
    for (int t = 0; t < iter.ntensors(); ++t) {
      rows.data[t] = static_cast<char*>(iter.data_ptr(t));
      rows.strides[t] = iter.ndim() == 0 ? 0 : iter.strides(t)[0];
    }
    const unsigned grid = static_cast<unsigned>((n + kRowThreads - 1) / kRowThreads);
    each_row<T, Functor>
        <<<grid, kRowThreads, 0, at::cuda::getCurrentCUDAStream()>>>(rows, n, layout, functor);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace torchbcd::kernels
