// The normalisation of a layer's units.
#pragma once

#include "torchbcd/export.h"

namespace torchbcd {

/// torch's LayerNorm over a layer's units: n(a) = (a - mean a)/sqrt(var a + eps) of each row, with the mean
/// and the variance over its units, times the scale of each unit plus its shift, where there are these. It
/// stands before the activation, V = sigma(scale n(U) + shift), or behind it, V = scale n(sigma(U)) + shift.
struct TORCHBCD_API Normalization {
  enum class Place { kNone, kBefore, kBehind };

  Place place = Place::kNone;
  double eps = 1e-5;

  bool none() const { return place == Place::kNone; }
};

}  // namespace torchbcd
