#include <ATen/Dispatch.h>

#include <variant>

#include "functors/updates.h"
#include "ops/cpu/loops.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

template <typename T>
struct StorePair {
  static constexpr int outputs = 2;

  static inline __attribute__((always_inline)) void at(const std::array<T*, 2>& out, int64_t i,
                                                       const functors::AuxiliaryPair<T>& pair) {
    out[0][i] = pair.u;
    out[1][i] = pair.residual;
  }
};

void activation_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "activation", [&] {
    std::visit(
        [&](auto f) {
          cpu::elementwise<scalar_t, 1>(iter, functors::ActivationValue<scalar_t, decltype(f)>{f});
        },
        chosen);
  });
}

template <typename Functor>
void prox_cpu(at::TensorIteratorBase& iter, const Functor& chosen, double gamma) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    std::visit(
        [&](auto f) { cpu::elementwise<scalar_t, 2>(iter, functors::Prox<scalar_t, decltype(f)>{f, g}); },
        chosen);
  });
}

void loss_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "loss", [&] {
    std::visit(
        [&](auto f) { cpu::elementwise<scalar_t, 2>(iter, functors::LossValue<scalar_t, decltype(f)>{f}); },
        chosen);
  });
}

void auxiliary_update_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                          double rho, double alpha) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "auxiliary_update", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    const auto r = static_cast<scalar_t>(rho);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto f) {
          cpu::elementwise<scalar_t, 3, StorePair<scalar_t>>(
              iter, functors::AuxiliaryUpdate<scalar_t, decltype(f)>{f, g, r, a});
        },
        chosen);
  });
}

void output_update_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen_loss,
                       const functors::Activation& chosen, double weight, double gamma, double alpha) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "output_update", [&] {
    const auto w = static_cast<scalar_t>(weight);
    const auto g = static_cast<scalar_t>(gamma);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto l, auto f) {
          cpu::elementwise<scalar_t, 3>(
              iter, functors::OutputUpdate<scalar_t, decltype(l), decltype(f)>{l, f, w, g, a});
        },
        chosen_loss, chosen);
  });
}

const decltype(activation)::OnCPU register_activation(activation, &activation_cpu);
const decltype(prox_activation)::OnCPU register_prox_activation(prox_activation,
                                                                &prox_cpu<functors::Activation>);
const decltype(prox_loss)::OnCPU register_prox_loss(prox_loss, &prox_cpu<functors::Loss>);
const decltype(loss)::OnCPU register_loss(loss, &loss_cpu);
const decltype(auxiliary_update)::OnCPU register_auxiliary_update(auxiliary_update, &auxiliary_update_cpu);
const decltype(output_update)::OnCPU register_output_update(output_update, &output_update_cpu);

}  // namespace
}  // namespace torchbcd::kernels
