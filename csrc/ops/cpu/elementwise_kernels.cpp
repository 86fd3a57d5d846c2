#include <ATen/Dispatch.h>
#include <ATen/native/cpu/Loops.h>

#include <tuple>
#include <variant>

#include "functors/updates.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

void activation_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "activation", [&] {
    std::visit(
        [&](auto f) {
          at::native::cpu_kernel(iter, [=](scalar_t u) -> scalar_t { return f.value(u); });
        },
        chosen);
  });
}

template <typename Functor>
void prox_cpu(at::TensorIteratorBase& iter, const Functor& chosen, double gamma) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    std::visit(
        [&](auto f) {
          at::native::cpu_kernel(
              iter, [=](scalar_t a, scalar_t b) -> scalar_t { return f.prox(a, b, g); });
        },
        chosen);
  });
}

void loss_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "loss", [&] {
    std::visit(
        [&](auto f) {
          at::native::cpu_kernel(iter,
                                 [=](scalar_t y, scalar_t v) -> scalar_t { return f.value(v, y); });
        },
        chosen);
  });
}

void auxiliary_update_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen,
                          double gamma, double rho, double alpha) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "auxiliary_update", [&] {
    const auto g = static_cast<scalar_t>(gamma);
    const auto r = static_cast<scalar_t>(rho);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto f) {
          at::native::cpu_kernel_multiple_outputs(
              iter,
              [=](scalar_t v, scalar_t u, scalar_t residual) -> std::tuple<scalar_t, scalar_t> {
                const auto updated = functors::auxiliary_update(f, v, u, residual, g, r, a);
                return {updated.u, updated.residual};
              });
        },
        chosen);
  });
}

void output_update_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen_loss,
                       const functors::Activation& chosen, double weight, double gamma,
                       double alpha) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "output_update", [&] {
    const auto w = static_cast<scalar_t>(weight);
    const auto g = static_cast<scalar_t>(gamma);
    const auto a = static_cast<scalar_t>(alpha);
    std::visit(
        [&](auto l, auto f) {
          at::native::cpu_kernel(iter, [=](scalar_t y, scalar_t v, scalar_t u) -> scalar_t {
            return functors::output_update(l, f, y, v, u, w, g, a);
          });
        },
        chosen_loss, chosen);
  });
}

const decltype(activation)::OnCPU register_activation(activation, &activation_cpu);
const decltype(prox_activation)::OnCPU register_prox_activation(prox_activation,
                                                                &prox_cpu<functors::Activation>);
const decltype(prox_loss)::OnCPU register_prox_loss(prox_loss, &prox_cpu<functors::Loss>);
const decltype(loss)::OnCPU register_loss(loss, &loss_cpu);
const decltype(auxiliary_update)::OnCPU register_auxiliary_update(auxiliary_update,
                                                                  &auxiliary_update_cpu);
const decltype(output_update)::OnCPU register_output_update(output_update, &output_update_cpu);

}  // namespace
}  // namespace torchbcd::kernels
