// prox_relu, prox_identity, prox_squared_loss: elementwise proximal operators.
#include <ATen/TensorIterator.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/kernels.h"
#include "torchbcd/functional.h"

namespace torchbcd {
namespace {

using ProxSignature = at::Tensor(const at::Tensor&, const at::Tensor&, double);

template <typename KernelType, typename Functor>
at::Tensor prox(const char* op, KernelType& kernel, const Functor& functor, const checks::Argument& a,
                const checks::Argument& b, double gamma) {
  checks::same_floating_kind(op, {a, b});
  checks::broadcastable(op, a, b);
  checks::positive(op, "gamma", gamma);
  at::Tensor out;
  auto iterator =
      at::TensorIteratorConfig().add_output(out).add_const_input(a.tensor).add_const_input(b.tensor).build();
  kernel(iterator, functor, gamma);
  return iterator.output();
}

at::Tensor prox_relu_kernel(const at::Tensor& a, const at::Tensor& b, double gamma) {
  return prox("torchbcd::prox_relu", kernels::prox_activation, functors::ReLU{}, {"a", a}, {"b", b}, gamma);
}

at::Tensor prox_identity_kernel(const at::Tensor& a, const at::Tensor& b, double gamma) {
  return prox("torchbcd::prox_identity", kernels::prox_activation, functors::Identity{}, {"a", a}, {"b", b},
              gamma);
}

at::Tensor prox_squared_loss_kernel(const at::Tensor& y, const at::Tensor& b, double gamma) {
  return prox("torchbcd::prox_squared_loss", kernels::prox_loss, functors::SquaredLoss{}, {"y", y}, {"b", b},
              gamma);
}

void implement(torch::Library& m) {
  m.impl("prox_relu", &prox_relu_kernel);
  m.impl("prox_identity", &prox_identity_kernel);
  m.impl("prox_squared_loss", &prox_squared_loss_kernel);
}

}  // namespace

at::Tensor prox_relu(const at::Tensor& a, const at::Tensor& b, double gamma) {
  static const auto op = find_operator<ProxSignature>("torchbcd::prox_relu");
  return op.call(a, b, gamma);
}

at::Tensor prox_identity(const at::Tensor& a, const at::Tensor& b, double gamma) {
  static const auto op = find_operator<ProxSignature>("torchbcd::prox_identity");
  return op.call(a, b, gamma);
}

at::Tensor prox_squared_loss(const at::Tensor& y, const at::Tensor& b, double gamma) {
  static const auto op = find_operator<ProxSignature>("torchbcd::prox_squared_loss");
  return op.call(y, b, gamma);
}

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  m.def("prox_relu(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_identity(Tensor a, Tensor b, float gamma) -> Tensor");
  m.def("prox_squared_loss(Tensor y, Tensor b, float gamma) -> Tensor");
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const char* op : {"prox_relu", "prox_identity", "prox_squared_loss"}) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
