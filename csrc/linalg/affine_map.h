// A layer's affine map, v W^T + 1 b^T, and lists of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

namespace torchbcd {

/// `bias` is undefined for a layer without one, and so are the others, those of the map behind it: scale and
/// shift of a normalisation, and the slope of a leaky ReLU.
struct AffineMap {
  at::Tensor weight;      // (d', d)
  at::Tensor bias;        // (d',)
  at::Tensor scale = {};  // (d',)
  at::Tensor shift = {};  // (d',)
  at::Tensor slope = {};  // (1,)
};

/// Which parts of a layer's parameters a sweep may move; the others are frozen, or there are none.
struct Trained {
  bool weight = true;
  bool bias = true;
  bool scale = false;
  bool shift = false;
  bool slope = false;

  /// Whether the W block has anything to move, or all that there is.
  bool affine() const { return weight || bias; }
  bool all_affine(const AffineMap& map) const { return weight && bias == map.bias.defined(); }
  /// Whether the block of the map behind it has.
  bool state_map() const { return scale || shift || slope; }
  bool any() const { return affine() || state_map(); }
  bool operator==(const Trained&) const = default;
};

/// One of a layer's parameters.
struct MapPart {
  const char* key;   // in states
  const char* name;  // in errors
  at::Tensor AffineMap::* tensor;
  bool Trained::* trained;
  bool of_affine;  // rather than of the map behind it
};
inline constexpr std::array<MapPart, 5> kMapParts = {{
    {"weight", "weight", &AffineMap::weight, &Trained::weight, true},
    {"bias", "bias", &AffineMap::bias, &Trained::bias, true},
    {"scale", "LayerNorm weight", &AffineMap::scale, &Trained::scale, false},
    {"shift", "LayerNorm bias", &AffineMap::shift, &Trained::shift, false},
    {"slope", "PReLU slope", &AffineMap::slope, &Trained::slope, false},
}};

/// out = v W^T + 1 b^T
void affine_out(const at::Tensor& v, const AffineMap& map, const at::Tensor& out);

/// residual_out = u - v W^T - 1 b^T
void affine_residual_out(const at::Tensor& u, const at::Tensor& v, const AffineMap& map,
                         const at::Tensor& residual_out);

std::vector<AffineMap> allocate_like(const std::vector<AffineMap>& maps);
AffineMap zeros_like(const AffineMap& map);
/// out = a - b
void difference_out(const std::vector<AffineMap>& a, const std::vector<AffineMap>& b,
                    const std::vector<AffineMap>& out);
/// to = (weight_factor W, b)
void copy_scaled(const AffineMap& from, double weight_factor, const AffineMap& to);
void copy_map(const AffineMap& from, const AffineMap& to);
/// map += times step
void add_map_(const AffineMap& map, const AffineMap& step, double times = 1);
void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to);
/// to moves the part `weight` of the way towards `end`.
void lerp_map_(const AffineMap& to, const AffineMap& end, double weight);
std::vector<AffineMap> clone_maps(const std::vector<AffineMap>& maps);

/// [W b], or W where there is no bias.
at::Tensor joined(const AffineMap& map);
/// Sets W and, where there is a column for it, b.
void split_out(const at::Tensor& joined, const AffineMap& map);

/// Weight and bias alone, and the rest.
AffineMap affine_part(const AffineMap& map);
AffineMap state_map_part(const AffineMap& map);
/// Views of a map without what is frozen: one of no inputs, or without a bias.
AffineMap trained_part(const AffineMap& map, Trained trained);

/// The tensors that there are of a layer: weight, bias, scale, shift, slope, in this order.
std::vector<at::Tensor> tensors_of(const AffineMap& map);
/// Those of all layers, in order.
std::vector<at::Tensor> tensors_of(const std::vector<AffineMap>& maps);

}  // namespace torchbcd
