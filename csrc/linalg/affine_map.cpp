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
AffineMap image(const AffineMap& map, F f) {
  AffineMap result;
  for (const MapPart& part : kMapParts) {
    if ((map.*part.tensor).defined()) {
      result.*part.tensor = f(map.*part.tensor);
    }
  }
  return result;
}

template <typename F>
std::vector<AffineMap> each(const std::vector<AffineMap>& maps, F f) {
  std::vector<AffineMap> result;
  for (const AffineMap& map : maps) {
    result.push_back(image(map, f));
  }
  return result;
}

// Calls f(a's, b's) for each tensor that there is of `a`.
template <typename F>
void each_pair(const AffineMap& a, const AffineMap& b, F f) {
  for (const MapPart& part : kMapParts) {
    if ((a.*part.tensor).defined()) {
      f(a.*part.tensor, b.*part.tensor);
    }
  }
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
  return image(map, [](const at::Tensor& t) { return at::zeros_like(t); });
}

void add_map_(const AffineMap& map, const AffineMap& step, double times) {
  each_pair(map, step, [times](const at::Tensor& t, const at::Tensor& by) { t.add_(by, times); });
}

void difference_out(const std::vector<AffineMap>& a, const std::vector<AffineMap>& b,
                    const std::vector<AffineMap>& out) {
  for (size_t l = 0; l < a.size(); ++l) {
    for (const MapPart& part : kMapParts) {
      if ((a[l].*part.tensor).defined()) {
        at::Tensor difference = out[l].*part.tensor;
        at::sub_out(difference, a[l].*part.tensor, b[l].*part.tensor);
      }
    }
  }
}

void copy_scaled(const AffineMap& from, double weight_factor, const AffineMap& to) {
  at::Tensor weight = to.weight;
  at::mul_out(weight, from.weight, at::scalar_tensor(weight_factor, at::kDouble));
  copy_map({weight, from.bias, from.scale, from.shift, from.slope}, to);
}

void copy_map(const AffineMap& from, const AffineMap& to) {
  each_pair(from, to, [](const at::Tensor& source, const at::Tensor& target) { target.copy_(source); });
}

void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to) {
  for (size_t l = 0; l < from.size(); ++l) {
    copy_map(from[l], to[l]);
  }
}

void lerp_map_(const AffineMap& to, const AffineMap& end, double weight) {
  each_pair(to, end, [weight](const at::Tensor& t, const at::Tensor& at_end) { t.lerp_(at_end, weight); });
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

AffineMap affine_part(const AffineMap& map) { return {map.weight, map.bias}; }

AffineMap state_map_part(const AffineMap& map) { return {{}, {}, map.scale, map.shift, map.slope}; }

AffineMap trained_part(const AffineMap& map, Trained trained) {
  AffineMap result;
  for (const MapPart& part : kMapParts) {
    if (trained.*part.trained) {
      result.*part.tensor = map.*part.tensor;
    }
  }
  if (!trained.weight) {
    result.weight = map.weight.narrow(1, 0, 0);
  }
  return result;
}

std::vector<at::Tensor> tensors_of(const AffineMap& map) {
  std::vector<at::Tensor> tensors;
  each_pair(map, map, [&tensors](const at::Tensor& t, const at::Tensor&) { tensors.push_back(t); });
  return tensors;
}

std::vector<at::Tensor> tensors_of(const std::vector<AffineMap>& maps) {
  std::vector<at::Tensor> tensors;
  for (const AffineMap& map : maps) {
    each_pair(map, map, [&tensors](const at::Tensor& t, const at::Tensor&) { tensors.push_back(t); });
  }
  return tensors;
}

}  // namespace torchbcd
