#include <ATen/Dispatch.h>
#include <c10/cuda/CUDAGuard.h>
#include <thrust/tuple.h>
#include <ATen/native/cuda/Loops.cuh>

#include <variant>

#include "functors/updates.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

// gpu_kernel reads a functor's argument and result types off one device operator(), and wants a
// tuple where there are two results.
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

void activation_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "activation", [&] {
    std::visit(
        [&](auto f) {
          using Functor = functors::ActivationValue<scalar_t, decltype(f)>;
          at::native::gpu_kernel(iter, Unary<scalar_t, Functor>{{f}});
        },
        chosen);
  });
}

template <typename Chosen>
void prox_cuda(at::TensorIteratorBase& iter, const Chosen& chosen, double gamma) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    std::visit(
        [&](auto f) {
          using Functor = functors::Prox<scalar_t, decltype(f)>;
          at::native::gpu_kernel(iter, Binary<scalar_t, Functor>{{f, g}});
        },
        chosen);
  });
}

void loss_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "loss", [&] {
    std::visit(
        [&](auto f) {
          using Functor = functors::LossValue<scalar_t, decltype(f)>;
          at::native::gpu_kernel(iter, Binary<scalar_t, Functor>{{f}});
        },
        chosen);
  });
}

void auxiliary_update_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                           double rho, double alpha) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "auxiliary_update", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    const auto r = static_cast<scalar_t>(rho);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto f) {
          using Functor = functors::AuxiliaryUpdate<scalar_t, decltype(f)>;
          launch_pair<scalar_t>(iter, Functor{f, g, r, a});
        },
        chosen);
  });
}

void output_update_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen_loss,
                        const functors::Activation& chosen, double weight, double gamma, double alpha) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "output_update", [&] {
    const auto w = static_cast<scalar_t>(weight);
    const auto g = static_cast<scalar_t>(gamma);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto l, auto f) {
          using Functor = functors::OutputUpdate<scalar_t, decltype(l), decltype(f)>;
          at::native::gpu_kernel(iter, Ternary<scalar_t, Functor>{{l, f, w, g, a}});
        },
        chosen_loss, chosen);
  });
}

const decltype(activation)::OnCUDA register_activation(activation, &activation_cuda);
const decltype(prox_activation)::OnCUDA register_prox_activation(prox_activation,
                                                                 &prox_cuda<functors::Activation>);
const decltype(prox_loss)::OnCUDA register_prox_loss(prox_loss, &prox_cuda<functors::Loss>);
const decltype(loss)::OnCUDA register_loss(loss, &loss_cuda);
const decltype(auxiliary_update)::OnCUDA register_auxiliary_update(auxiliary_update, &auxiliary_update_cuda);
const decltype(output_update)::OnCUDA register_output_update(output_update, &output_update_cuda);

}  // namespace
}  // namespace torchbcd::kernels
