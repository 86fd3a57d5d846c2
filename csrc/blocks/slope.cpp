#include "blocks/slope.h"

#include <ATen/ops/clamp_max.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>

#include "kernels/passes.h"

namespace torchbcd {

void SlopeSums::add(const at::Tensor& v, const at::Tensor& u, const functors::AnyActivation& activation) {
  const at::Tensor below = at::clamp_max(u, 0);
  at::Tensor gap = passes::activation(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
  cross_ -= inner_product(below, gap.sub_(v));
  square_ += inner_product(below, below);
}

at::Tensor SlopeSums::minimiser(const at::Tensor& from, double penalty, double proximal) const {
  const double before = from.item<double>();
  const double exact = before + penalty * cross_ / (penalty * square_ + proximal);
  at::Tensor slope = at::full_like(from, as_held_by(from, exact));
  // The decrease of the step as rounded, without its proximal part: none is of no use, or harm.
  const double step = slope.item<double>() - before;
  const bool rises = step * (2 * cross_ - square_ * step) <= 0;
  return rises ? from.clone() : slope;
}

}  // namespace torchbcd
