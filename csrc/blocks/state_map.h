// The map between two linear layers, V = map(U): an activation, with what may stand before it and behind it.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "torchbcd/normalization.h"

namespace torchbcd {

class StateMap;

/// The map's derivative at some U: row by row J = left o D o right, with D the normalisation's, which is
/// symmetric,
///
///   D z = (z - mean z - n mean(n z))/s,   n = (a - mean a)/s,  s = sqrt(var a + eps),
///
/// since dn_i/da_j = (delta_ij - 1/d - n_i n_j/d)/s: exactly, whatever eps is. Without one D is the identity.
class StateTangent {
 public:
  /// J z
  at::Tensor along(const at::Tensor& z) const;
  /// J^T g
  at::Tensor pulled(const at::Tensor& g) const;

 private:
  friend class StateMap;
  at::Tensor normalized(const at::Tensor& z) const;

  at::Tensor left_, right_;        // undefined: ones
  at::Tensor n_, inverse_spread_;  // 1/s, (n, 1); undefined: no normalisation
};

/// What V moves by, to first order, where the map's parameters do.
struct ParameterTangent {
  at::Tensor gain;   // of a normalisation's values; undefined: ones
  at::Tensor n;      // what is normalised; undefined where nothing is
  at::Tensor slope;  // where the activation's slope moves by one; undefined without one

  at::Tensor of_scale() const;
  at::Tensor of_shift() const;
};

/// The leaky ReLU of the slope (1,), for which a GPU is waited for; the activation itself where there is
/// none.
functors::AnyActivation with_slope(const functors::AnyActivation& activation, const at::Tensor& slope);

class StateMap {
 public:
  functors::AnyActivation activation;
  Normalization normalization = {};
  at::Tensor scale = {}, shift = {};  // of the normalisation; undefined: one, zero
  at::Tensor slope = {};              // (1,), of the activation, a leaky ReLU, once it is read
  at::Tensor mask = {};               // that V is multiplied by, entry by entry; undefined: ones

  /// Makes the activation the one with the slope.
  void read_slope() { activation = with_slope(activation, slope); }
  /// Whether a unit's V is its activation alone, or that times the mask.
  bool elementwise() const { return normalization.none(); }

  /// out = map(u); out may be u.
  void out(const at::Tensor& u, const at::Tensor& out) const;
  at::Tensor operator()(const at::Tensor& u) const;
  StateTangent tangent(const at::Tensor& u) const;
  ParameterTangent parameter_tangent(const at::Tensor& u) const;

  /// Each row's var a + eps of what is normalised, (n, 1), in float64.
  at::Tensor variances(const at::Tensor& u) const;

 private:
  bool before() const { return normalization.place == Normalization::Place::kBefore; }
  at::Tensor normalized_values(const at::Tensor& u) const;
  at::Tensor with_affine(const at::Tensor& n) const;
};

}  // namespace torchbcd
