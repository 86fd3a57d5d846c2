#include "blocks/state_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/var.h>

#include <tuple>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

// n(a) and 1/s of each row, (n, 1).
std::tuple<at::Tensor, at::Tensor> normalized_rows(const at::Tensor& a, double eps) {
  const auto [n, mean, inverse_spread] = at::native_layer_norm(a, {a.size(1)}, {}, {}, eps);
  return {n, inverse_spread};
}

at::Tensor activated(const at::Tensor& u, const functors::AnyActivation& activation) {
  return passes::activation(u, activation, at::empty_like(u, at::MemoryFormat::Contiguous));
}

at::Tensor slope_at(const at::Tensor& u, const functors::AnyActivation& activation) {
  return functors::is_identity(activation) ? at::Tensor() : passes::activation_derivative(u, activation);
}

// a b, of factors that may be undefined: ones.
at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  return !a.defined() ? b : !b.defined() ? a : a * b;
}

}  // namespace

functors::AnyActivation with_slope(const functors::AnyActivation& activation, const at::Tensor& slope) {
  if (!slope.defined()) {
    return activation;
  }
  functors::LeakyReLU leaky;
  leaky.slope = slope.item<double>();
  return leaky;
}

at::Tensor StateTangent::normalized(const at::Tensor& z) const {
  if (!n_.defined()) {
    return z;
  }
  at::Tensor image = z - z.mean(1, /*keepdim=*/true);
  return image.addcmul_(n_, (n_ * z).mean(1, /*keepdim=*/true), -1).mul_(inverse_spread_);
}

at::Tensor StateTangent::along(const at::Tensor& z) const {
  return product(normalized(product(z, right_)), left_);
}

at::Tensor StateTangent::pulled(const at::Tensor& g) const {
  return product(normalized(product(g, left_)), right_);
}

at::Tensor StateMap::with_affine(const at::Tensor& n) const {
  const at::Tensor scaled = product(n, scale);
  return shift.defined() ? scaled + shift : scaled;
}

at::Tensor StateMap::normalized_values(const at::Tensor& u) const {
  return std::get<0>(normalized_rows(before() ? u : activated(u, activation), normalization.eps));
}

void StateMap::out(const at::Tensor& u, const at::Tensor& out) const {
  at::Tensor v = out;
  if (elementwise()) {
    passes::activation(u, activation, v);
  } else if (before()) {
    passes::activation(with_affine(normalized_values(u)), activation, v);
  } else {
    v.copy_(with_affine(normalized_values(u)));
  }
  if (mask.defined()) {
    v.mul_(mask);
  }
}

at::Tensor StateMap::operator()(const at::Tensor& u) const {
  at::Tensor v = at::empty_like(u, at::MemoryFormat::Contiguous);
  out(u, v);
  return v;
}

StateTangent StateMap::tangent(const at::Tensor& u) const {
  StateTangent tangent;
  if (elementwise()) {
    tangent.left_ = product(slope_at(u, activation), mask);
    return tangent;
  }
  std::tie(tangent.n_, tangent.inverse_spread_) =
      normalized_rows(before() ? u : activated(u, activation), normalization.eps);
  tangent.left_ = product(mask, scale);
  if (before()) {
    tangent.left_ = product(slope_at(with_affine(tangent.n_), activation), tangent.left_);
  } else {
    tangent.right_ = slope_at(u, activation);
  }
  return tangent;
}

at::Tensor ParameterTangent::of_scale() const { return product(n, gain); }

at::Tensor ParameterTangent::of_shift() const { return gain.defined() ? gain : at::ones_like(n); }

ParameterTangent StateMap::parameter_tangent(const at::Tensor& u) const {
  ParameterTangent tangent;
  at::Tensor argument = u;  // of the activation
  if (!elementwise()) {
    tangent.n = normalized_values(u);
    tangent.gain = mask;
    if (before()) {
      argument = with_affine(tangent.n);
      tangent.gain = product(slope_at(argument, activation), mask);
    }
  }
  if (slope.defined()) {
    const at::Tensor below = at::clamp_max(argument, 0);
    if (elementwise() || before()) {
      tangent.slope = product(below, mask);
    } else {
      StateTangent behind = this->tangent(u);
      behind.right_.reset();
      tangent.slope = behind.along(below);
    }
  }
  return tangent;
}

at::Tensor StateMap::variances(const at::Tensor& u) const {
  const at::Tensor a = before() ? u : activated(u, activation);
  return at::var(a.to(at::kDouble), at::IntArrayRef{1}, /*unbiased=*/false, /*keepdim=*/true)
      .add_(normalization.eps);
}

}  // namespace torchbcd
