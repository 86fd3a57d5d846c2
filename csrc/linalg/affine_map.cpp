#include "linalg/affine_map.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>

namespace torchbcd {

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
  std::vector<AffineMap> result;
  result.reserve(maps.size());
  for (const AffineMap& map : maps) {
    result.push_back(
        {at::empty_like(map.weight), map.bias.defined() ? at::empty_like(map.bias) : at::Tensor()});
  }
  return result;
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
  std::vector<AffineMap> copies;
  copies.reserve(maps.size());
  for (const AffineMap& map : maps) {
    copies.push_back({map.weight.clone(), map.bias.defined() ? map.bias.clone() : at::Tensor()});
  }
  return copies;
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
