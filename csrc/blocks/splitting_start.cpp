#include "blocks/splitting_start.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include "kernels/passes.h"

namespace torchbcd {

at::Tensor product_of(const at::Tensor& x, const at::Tensor& m, const at::Tensor& offset) {
  at::Tensor product = at::mm(x, m.t());
  return offset.defined() ? product.add_(offset) : product;
}

at::Tensor splitting_start(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& target,
                           const at::Tensor& m, const at::Tensor& offset,
                           const functors::AnyActivation& activation, double ratio, double ridge,
                           c10::function_ref<at::Tensor(const at::Tensor&)> solve) {
  constexpr int kSteps = 10;
  at::Tensor start = x;
  at::Tensor z = product_of(x, m, offset);
  at::Tensor multiplier = passes::activation(z, activation).sub_(target);  // over the penalty
  multiplier.mul_(passes::activation_derivative(z, activation)).div_(ratio);
  for (int step = 0; step < kSteps; ++step) {
    const at::Tensor split = (offset.defined() ? z - offset : z) - multiplier;
    start = solve(at::mm(split, m).add_(centre, ridge));
    const at::Tensor product = product_of(start, m, offset);
    z = passes::prox_activation(target, product + multiplier, activation, ratio);
    multiplier.add_(product).sub_(z);
  }
  return start;
}

}  // namespace torchbcd
