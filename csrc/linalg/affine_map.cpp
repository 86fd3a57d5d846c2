#include "linalg/affine_map.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros_like.h>

namespace torchbcd {
namespace {

template <typename F>
std::vector<AffineMap> each(const std::vector<AffineMap>& maps, F f) {
  std::vector<AffineMap> result;
  for (const AffineMap& map : maps) {
    result.push_back({f(map.weight), map.bias.defined() ? f(map.bias) : at::Tensor()});
  }
  return result;
}

}  // namespace

void affine_out(const at::Tensor& v, const AffineMap& map, const at::Tensor& out) {
  at::Tensor result = out;
  if (map.bias.defined()) {
    at::addmm_out(result, map.bias, v, map.weight.t());
  } else {
    at::mm_out(result, v, map.weight.t());
  }
}

void affine_residual_out(const at::Tensor& u, const at::Tensor& v, const AffineMap& map,
                         const at::Tensor& residual_out) {
  at::Tensor out = residual_out;
  if (map.bias.defined()) {
    at::sub_out(out, u, map.bias);
  } else {
    out.copy_(u);
  }
  out.addmm_(v, map.weight.t(), 1, -1);
}

std::vector<AffineMap> allocate_like(const std::vector<AffineMap>& maps) {
  return each(maps, [](const at::Tensor& t) { return at::empty_like(t); });
}

AffineMap zeros_like(const AffineMap& map) {
  return {at::zeros_like(map.weight), map.bias.defined() ? at::zeros_like(map.bias) : at::Tensor()};
}

void add_map_(const AffineMap& map, const AffineMap& step, double times) {
  map.weight.add_(step.weight, times);
  if (map.bias.defined()) {
    map.bias.add_(step.bias, times);
  }
}

void difference_out(const std::vector<AffineMap>& a, const std::vector<AffineMap>& b,
                    const std::vector<AffineMap>& out) {
  for (size_t l = 0; l < a.size(); ++l) {
    at::Tensor weight = out[l].weight;
    at::sub_out(weight, a[l].weight, b[l].weight);
    if (a[l].bias.defined()) {
      at::Tensor bias = out[l].bias;
      at::sub_out(bias, a[l].bias, b[l].bias);
    }
  }
}

void copy_scaled(const AffineMap& from, double weight_factor, const AffineMap& to) {
  at::Tensor weight = to.weight;
  at::mul_out(weight, from.weight, at::scalar_tensor(weight_factor, at::kDouble));
  if (from.bias.defined()) {
    to.bias.copy_(from.bias);
  }
}

void copy_map(const AffineMap& from, const AffineMap& to) {
  to.weight.copy_(from.weight);
  if (from.bias.defined()) {
    to.bias.copy_(from.bias);
  }
}

void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to) {
  for (size_t l = 0; l < from.size(); ++l) {
    copy_map(from[l], to[l]);
  }
}

std::vector<AffineMap> clone_maps(const std::vector<AffineMap>& maps) {
  return each(maps, [](const at::Tensor& t) { return t.clone(); });
}

at::Tensor joined(const AffineMap& map) {
  return map.bias.defined() ? at::cat({map.weight, map.bias.unsqueeze(1)}, 1) : map.weight;
}

void split_out(const at::Tensor& joined, const AffineMap& map) {
  const int64_t inputs = map.weight.size(1);
  map.weight.copy_(joined.narrow(1, 0, inputs));
  if (joined.size(1) > inputs) {
    map.bias.copy_(joined.select(1, inputs));
  }
}

AffineMap trained_part(const AffineMap& map, Trained trained) {
  return {trained.weight ? map.weight : map.weight.narrow(1, 0, 0), trained.bias ? map.bias : at::Tensor()};
}

std::vector<at::Tensor> tensors_of(const std::vector<AffineMap>& maps) {
  std::vector<at::Tensor> tensors;
  for (const AffineMap& map : maps) {
    tensors.push_back(map.weight);
    if (map.bias.defined()) {
      tensors.push_back(map.bias);
    }
  }
  return tensors;
}

}  // namespace torchbcd
