#include <ATen/Dispatch.h>
#include <c10/cuda/CUDAGuard.h>
#include <thrust/tuple.h>
#include <ATen/native/cuda/Loops.cuh>

#include <variant>

#include "functors/updates.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

// nvcc does not allow an extended lambda inside a generic lambda, so each kernel is a functor
// struct and std::visit only picks its type.

template <typename T, typename F>
struct Value {
  F f;
  __device__ T operator()(T u) const { return f.value(u); }
};

template <typename T, typename F>
struct LossValue {
  F f;
  __device__ T operator()(T y, T v) const { return f.value(v, y); }
};

template <typename T, typename F>
struct Prox {
  F f;
  T gamma;
  __device__ T operator()(T a, T b) const { return f.prox(a, b, gamma); }
};

template <typename T, typename F>
struct AuxiliaryUpdate {
  F f;
  T gamma, rho, alpha;
  __device__ thrust::tuple<T, T> operator()(T v, T u, T residual) const {
    const auto updated = functors::auxiliary_update(f, v, u, residual, gamma, rho, alpha);
    return {updated.u, updated.residual};
  }
};

template <typename T, typename L, typename F>
struct OutputUpdate {
  L loss;
  F f;
  T weight, gamma, alpha;
  __device__ T operator()(T y, T v, T u) const {
    return functors::output_update(loss, f, y, v, u, weight, gamma, alpha);
  }
};

void activation_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "activation", [&] {
    std::visit([&](auto f) { at::native::gpu_kernel(iter, Value<scalar_t, decltype(f)>{f}); },
               chosen);
  });
}

template <typename Functor>
void prox_cuda(at::TensorIteratorBase& iter, const Functor& chosen, double gamma) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    std::visit([&](auto f) { at::native::gpu_kernel(iter, Prox<scalar_t, decltype(f)>{f, g}); },
               chosen);
  });
}

void loss_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "loss", [&] {
    std::visit([&](auto f) { at::native::gpu_kernel(iter, LossValue<scalar_t, decltype(f)>{f}); },
               chosen);
  });
}

void auxiliary_update_cuda(at::TensorIteratorBase& iter, const functors::Activation& chosen,
                           double gamma, double rho, double alpha) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "auxiliary_update", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    const auto r = static_cast<scalar_t>(rho);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto f) {
          at::native::gpu_kernel_multiple_outputs(
              iter, AuxiliaryUpdate<scalar_t, decltype(f)>{f, g, r, a});
        },
        chosen);
  });
}

void output_update_cuda(at::TensorIteratorBase& iter, const functors::Loss& chosen_loss,
                        const functors::Activation& chosen, double weight, double gamma,
                        double alpha) {
  const c10::cuda::CUDAGuard guard(iter.device());
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "output_update", [&] {
    const auto w = static_cast<scalar_t>(weight);
    const auto g = static_cast<scalar_t>(gamma);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto l, auto f) {
          at::native::gpu_kernel(iter,
                                 OutputUpdate<scalar_t, decltype(l), decltype(f)>{l, f, w, g, a});
        },
        chosen_loss, chosen);
  });
}

const decltype(activation)::OnCUDA register_activation(activation, &activation_cuda);
const decltype(prox_activation)::OnCUDA register_prox_activation(prox_activation,
                                                                 &prox_cuda<functors::Activation>);
const decltype(prox_loss)::OnCUDA register_prox_loss(prox_loss, &prox_cuda<functors::Loss>);
const decltype(loss)::OnCUDA register_loss(loss, &loss_cuda);
const decltype(auxiliary_update)::OnCUDA register_auxiliary_update(auxiliary_update,
                                                                   &auxiliary_update_cuda);
const decltype(output_update)::OnCUDA register_output_update(output_update, &output_update_cuda);

}  // namespace
}  // namespace torchbcd::kernels
