#include <ATen/Dispatch.h>
#include <c10/cuda/CUDAGuard.h>
#include <thrust/tuple.h>
#include <ATen/native/cuda/Loops.cuh>

#include <variant>

#include "functors/updates.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

// gpu_kernel reads a functor's argument and result types off one device operator().
template <typename T, typename Functor>
struct Unary {
  Functor functor;
  __device__ T operator()(T a) const { return functor(a); }
};

template <typename T, typename Functor>
struct Binary {
  Functor functor;
  __device__ T operator()(T a, T b) const { return functor(a, b); }
};

template <typename T, typename Functor>
struct Ternary {
  Functor functor;
  __device__ T operator()(T a, T b, T c) const { return functor(a, b, c); }
};

// Kernels of two results want an extended lambda, which must not stand inside a generic one.
template <typename T, typename Functor>
void launch_pair(at::TensorIteratorBase& iter, const Functor& functor) {
  at::native::gpu_kernel_multiple_outputs(
      iter, [functor] __host__ __device__(T a, T b, T c) -> thrust::tuple<T, T> {
        const functors::AuxiliaryPair<T> pair = functor(a, b, c);
        return {pair.u, pair.residual};
      });
}

// f(functor) for the functor that `chosen` holds, in the iterator's type, on its device.
#define TORCHBCD_VISIT(NAME, CHOSEN, ...)          \
  const c10::cuda::CUDAGuard guard(iter.device()); \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] { std::visit([&](auto f) __VA_ARGS__, CHOSEN); })

void activation_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  TORCHBCD_VISIT("activation", chosen, {
    using Functor = functors::ActivationValue<scalar_t, decltype(f)>;
    at::native::gpu_kernel(iter, Unary<scalar_t, Functor>{{f}});
  });
}

void activation_derivative_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  TORCHBCD_VISIT("activation_derivative", chosen, {
    using Functor = functors::ActivationDerivative<scalar_t, decltype(f)>;
    at::native::gpu_kernel(iter, Unary<scalar_t, Functor>{{f}});
  });
}

void prox_activation_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma) {
  TORCHBCD_VISIT("prox_activation", chosen, {
    using Functor = functors::Prox<scalar_t, decltype(f)>;
    at::native::gpu_kernel(iter, Binary<scalar_t, Functor>{{f, static_cast<scalar_t>(gamma)}});
  });
}

void auxiliary_update_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                           double rho, double alpha) {
  TORCHBCD_VISIT("auxiliary_update", chosen, {
    using Functor = functors::AuxiliaryUpdate<scalar_t, decltype(f)>;
    launch_pair<scalar_t>(iter, Functor{f, static_cast<scalar_t>(gamma), static_cast<scalar_t>(rho),
                                        static_cast<scalar_t>(alpha)});
  });
}

void output_centre_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                        double alpha) {
  TORCHBCD_VISIT("output_centre", chosen, {
    using Functor = functors::OutputCentre<scalar_t, decltype(f)>;
    at::native::gpu_kernel(
        iter, Binary<scalar_t, Functor>{{f, static_cast<scalar_t>(gamma), static_cast<scalar_t>(alpha)}});
  });
}

void loss_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  TORCHBCD_VISIT("loss", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      using Functor = functors::LossValue<scalar_t, decltype(f)>;
      at::native::gpu_kernel(iter, Binary<scalar_t, Functor>{{f}});
    }
  });
}

void prox_loss_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen, double gamma) {
  TORCHBCD_VISIT("prox_loss", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      using Functor = functors::Prox<scalar_t, decltype(f)>;
      at::native::gpu_kernel(iter, Binary<scalar_t, Functor>{{f, static_cast<scalar_t>(gamma)}});
    }
  });
}

void loss_update_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen,
                      const functors::Regularizer& regularizer, double weight, double curvature) {
  TORCHBCD_VISIT("loss_update", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      using Functor = functors::LossUpdate<scalar_t, decltype(f)>;
      at::native::gpu_kernel(iter, Ternary<scalar_t, Functor>{{f, regularizer, static_cast<scalar_t>(weight),
                                                               static_cast<scalar_t>(curvature)}});
    }
  });
}

#undef TORCHBCD_VISIT

void prox_regularizer_cuda(at::TensorIteratorBase& iter, const functors::Regularizer& regularizer, double t) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox_regularizer", [&] {
    using Functor = functors::RegularizerProx<scalar_t>;
    at::native::gpu_kernel(iter, Unary<scalar_t, Functor>{{regularizer, static_cast<scalar_t>(t)}});
  });
}

// Row kernels give every row a thread: the iterator's elements are the first entries of the rows, and a
// kernel of references to them finds the rest by the strides.
template <typename T>
struct RowPointers {
  char* data[4];
  int64_t strides[4];  // bytes from row to row

  __device__ T* at(int tensor, int64_t row) const {
    return reinterpret_cast<T*>(data[tensor] + row * strides[tensor]);
  }
};

template <typename T>
RowPointers<T> row_pointers(at::TensorIteratorBase& iter) {
  RowPointers<T> rows = {};
  for (int t = 0; t < iter.ntensors(); ++t) {
    rows.data[t] = static_cast<char*>(iter.data_ptr(t));
    rows.strides[t] = iter.ndim() == 0 ? 0 : iter.strides(t)[0];
  }
  return rows;
}

constexpr int kRowThreads = 128;

template <typename T>
__global__ void cross_entropy_update_rows(RowPointers<T> rows, int64_t n, RowLayout layout,
                                          functors::Regularizer regularizer, double weight,
                                          double curvature) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    functors::CrossEntropyRow<T>{rows.at(1, i),
                                 rows.at(2, i),
                                 rows.at(0, i),
                                 layout.target_stride,
                                 layout.centre_stride,
                                 layout.out_stride,
                                 layout.classes,
                                 weight * static_cast<double>(*rows.at(3, i)),
                                 curvature,
                                 regularizer}
        .solve();
  }
}

template <typename T>
__global__ void cross_entropy_rows(RowPointers<T> rows, int64_t n, RowLayout layout) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    const functors::CrossEntropyRow<T> row{rows.at(1, i),
                                           rows.at(2, i),
                                           nullptr,
                                           layout.target_stride,
                                           layout.centre_stride,
                                           0,
                                           layout.classes,
                                           1,
                                           0,
                                           {}};
    *rows.at(0, i) = static_cast<T>(row.value());
  }
}

unsigned row_blocks(int64_t n) { return static_cast<unsigned>((n + kRowThreads - 1) / kRowThreads); }

void cross_entropy_update_cuda(at::TensorIteratorBase& iter, const RowLayout& layout,
                               const functors::Regularizer& regularizer, double weight, double curvature) {
  if (iter.numel() == 0) {
    return;
  }
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "cross_entropy_update", [&] {
    cross_entropy_update_rows<scalar_t>
        <<<row_blocks(iter.numel()), kRowThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
            row_pointers<scalar_t>(iter), iter.numel(), layout, regularizer, weight, curvature);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void cross_entropy_cuda(at::TensorIteratorBase& iter, const RowLayout& layout) {
  if (iter.numel() == 0) {
    return;
  }
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "cross_entropy", [&] {
    cross_entropy_rows<scalar_t>
        <<<row_blocks(iter.numel()), kRowThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
            row_pointers<scalar_t>(iter), iter.numel(), layout);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

const ActivationKernel::OnCUDA register_activation(activation, &activation_cuda);
const ActivationKernel::OnCUDA register_derivative(activation_derivative, &activation_derivative_cuda);
const LossKernel::OnCUDA register_loss(loss, &loss_cuda);
const ProxActivationKernel::OnCUDA register_prox_activation(prox_activation, &prox_activation_cuda);
const ProxLossKernel::OnCUDA register_prox_loss(prox_loss, &prox_loss_cuda);
const RegularizerKernel::OnCUDA register_prox_regularizer(prox_regularizer, &prox_regularizer_cuda);
const AuxiliaryUpdateKernel::OnCUDA register_auxiliary_update(auxiliary_update, &auxiliary_update_cuda);
const OutputCentreKernel::OnCUDA register_output_centre(output_centre, &output_centre_cuda);
const LossUpdateKernel::OnCUDA register_loss_update(loss_update, &loss_update_cuda);
const CrossEntropyUpdateKernel::OnCUDA register_cross_entropy_update(cross_entropy_update,
                                                                     &cross_entropy_update_cuda);
const CrossEntropyKernel::OnCUDA register_cross_entropy(cross_entropy, &cross_entropy_cuda);

}  // namespace
}  // namespace torchbcd::kernels
