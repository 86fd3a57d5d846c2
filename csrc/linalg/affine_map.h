// A layer's affine map, v W^T + 1 b^T, and lists of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace torchbcd {

/// `bias` is undefined for a layer without one.
struct AffineMap {
  at::Tensor weight;  // (d', d)
  at::Tensor bias;    // (d',)
};

/// Which parts of a layer's map a sweep may move; the others are frozen. `bias` is false where there is none.
struct Trained {
  bool weight = true;
  bool bias = true;

  bool any() const { return weight || bias; }
  bool operator==(const Trained&) const = default;
};

/// out = v W^T + 1 b^T
void affine_out(const at::Tensor& v, const AffineMap& map, const at::Tensor& out);

/// residual_out = u - v W^T - 1 b^T
void affine_residual_out(const at::Tensor& u, const at::Tensor& v, const AffineMap& map,
                         const at::Tensor& residual_out);

std::vector<AffineMap> allocate_like(const std::vector<AffineMap>& maps);
void copy_map(const AffineMap& from, const AffineMap& to);
void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to);
std::vector<AffineMap> clone_maps(const std::vector<AffineMap>& maps);

/// The weights and biases that there are, in order.
std::vector<at::Tensor> tensors_of(const std::vector<AffineMap>& maps);

}  // namespace torchbcd
