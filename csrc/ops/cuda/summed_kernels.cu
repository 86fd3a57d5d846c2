#include <ATen/Dispatch.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>
#include <variant>

#include "functors/summed.h"
#include "ops/kernels.h"

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
    f.scale = static_cast<T>(scale[blockIdx.x]);
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

template <typename T, typename Functor>
void summed(at::TensorIteratorBase& iter, const SumLayout& layout, const Functor& f,
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

void sum_of_squares_cuda(at::TensorIteratorBase& iter, const SumLayout& layout) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "sum_of_squares",
                             [&] { summed<scalar_t>(iter, layout, functors::SumOfSquares<scalar_t>{}); });
}

void difference_cuda(at::TensorIteratorBase& iter, const SumLayout& layout) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "difference",
                             [&] { summed<scalar_t>(iter, layout, functors::Difference<scalar_t>{}); });
}

void extrapolated_difference_cuda(at::TensorIteratorBase& iter, const SumLayout& layout, double omega) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "extrapolated_difference", [&] {
    summed<scalar_t>(iter, layout, functors::ExtrapolatedDifference<scalar_t>{static_cast<scalar_t>(omega)});
  });
}

void residual_step_cuda(at::TensorIteratorBase& iter, const SumLayout& layout, double step) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "residual_step", [&] {
    summed<scalar_t>(iter, layout, functors::ResidualStep<scalar_t>{static_cast<scalar_t>(step)});
  });
}

void relaxed_residual_cuda(at::TensorIteratorBase& iter, const SumLayout& layout, double keep, double gain) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "relaxed_residual", [&] {
    summed<scalar_t>(
        iter, layout,
        functors::RelaxedResidual<scalar_t>{static_cast<scalar_t>(keep), static_cast<scalar_t>(gain)});
  });
}

// f(functor) for the functor that `chosen` holds, in the iterator's type.
#define TORCHBCD_VISIT(NAME, CHOSEN, ...) \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] { std::visit([&](auto f) __VA_ARGS__, CHOSEN); })

// The same; what is not monotone was refused
// before.
#define TORCHBCD_VISIT_MONOTONE(NAME, CHOSEN, ...)                        \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] {             \
    std::visit(                                                           \
        [&](auto f) {                                                     \
          if constexpr (functors::has_preimages<decltype(f)>) __VA_ARGS__ \
        },                                                                \
        CHOSEN);                                                          \
  })

void preimage_projection_cuda(at::TensorIteratorBase& iter, const SumLayout& layout,
                              const functors::Activation& chosen, double eps) {
  TORCHBCD_VISIT_MONOTONE("preimage_projection", chosen, {
    summed<scalar_t>(iter, layout, functors::PreimageProjection<scalar_t, decltype(f)>{f, eps});
  });
}

void image_step_cuda(at::TensorIteratorBase& iter, const SumLayout& layout,
                     const functors::Activation& chosen, double omega, double step, double eps) {
  TORCHBCD_VISIT_MONOTONE("image_step", chosen, {
    summed<scalar_t>(
        iter, layout,
        functors::ImageStep<scalar_t, decltype(f)>{f, static_cast<scalar_t>(omega),
                                                   static_cast<scalar_t>(step), static_cast<scalar_t>(eps)});
  });
}

void joint_step_cuda(at::TensorIteratorBase& iter, const SumLayout& layout,
                     const functors::Activation& chosen, double omega, double step, double eps,
                     double ratio) {
  TORCHBCD_VISIT_MONOTONE("joint_step", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::JointStep<scalar_t, decltype(f)>{
                         f, static_cast<scalar_t>(omega), static_cast<scalar_t>(step),
                         static_cast<scalar_t>(eps), static_cast<scalar_t>(ratio)});
  });
}

void state_direction_cuda(at::TensorIteratorBase& iter, const SumLayout& layout,
                          const functors::Activation& chosen, double ratio) {
  TORCHBCD_VISIT("state_direction", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::StateDirection<scalar_t, decltype(f)>{f, static_cast<scalar_t>(ratio)});
  });
}

void state_move_cuda(at::TensorIteratorBase& iter, const SumLayout& layout,
                     const functors::Activation& chosen, double keep, const double* row_scale) {
  TORCHBCD_VISIT("state_move", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::StateMove<scalar_t, decltype(f)>{f, static_cast<scalar_t>(keep), 0},
                     row_scale);
  });
}

#undef TORCHBCD_VISIT
#undef TORCHBCD_VISIT_MONOTONE

const SumKernel::OnCUDA register_sum_of_squares(sum_of_squares, &sum_of_squares_cuda);
const SumKernel::OnCUDA register_difference(difference, &difference_cuda);
const ScaledSumKernel::OnCUDA register_extrapolated(extrapolated_difference, &extrapolated_difference_cuda);
const ScaledSumKernel::OnCUDA register_residual_step(residual_step, &residual_step_cuda);
const BoxKernel::OnCUDA register_preimage_projection(preimage_projection, &preimage_projection_cuda);
const ImageStepKernel::OnCUDA register_image_step(image_step, &image_step_cuda);
const JointStepKernel::OnCUDA register_joint_step(joint_step, &joint_step_cuda);
const RelaxedResidualKernel::OnCUDA register_relaxed_residual(relaxed_residual, &relaxed_residual_cuda);
const StateDirectionKernel::OnCUDA register_state_direction(state_direction, &state_direction_cuda);
const StateMoveKernel::OnCUDA register_state_move(state_move, &state_move_cuda);

}  // namespace
}  // namespace torchbcd::kernels
