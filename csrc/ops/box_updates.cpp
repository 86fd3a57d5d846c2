// preimage_projection, joint_state_update: the z block and the joint (z, a) block of DLAM (Wang et al.,
// Problem 2).
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <string_view>
#include <tuple>

#include "ops/checks.h"
#include "ops/dispatch.h"
#include "ops/registry.h"
#include "ops/summed_passes.h"
#include "torchbcd/functional.h"

namespace torchbcd {
namespace {

using PreimageProjectionSignature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                               std::string_view, c10::ArrayRef<double>, double);
using JointStateUpdateSignature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                                     std::string_view, c10::ArrayRef<double>,
                                                                     double, double);

at::Tensor preimage_projection_kernel(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                                      std::string_view activation, c10::ArrayRef<double> parameters,
                                      double eps) {
  constexpr const char* op = "torchbcd::preimage_projection";
  checks::same_floating_kind(op, {{"q", q}, {"a", a}, {"z", z}});
  checks::has_shape(op, {"a", a}, q.sizes(), "that of q");
  checks::has_shape(op, {"z", z}, q.sizes(), "that of q");
  checks::non_negative(op, "eps", eps);
  const functors::Activation functor = activation_from(activation, parameters);
  check_monotone(op, functor);
  at::Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
  passes::preimage_projection(q.contiguous(), a.contiguous(), z.contiguous(), functor, eps, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> joint_state_update_kernel(const at::Tensor& q, const at::Tensor& v,
                                                             std::string_view activation,
                                                             c10::ArrayRef<double> parameters, double ratio,
                                                             double eps) {
  constexpr const char* op = "torchbcd::joint_state_update";
  checks::same_floating_kind(op, {{"q", q}, {"v", v}});
  checks::has_shape(op, {"v", v}, q.sizes(), "that of q");
  checks::positive(op, "ratio", ratio);
  checks::non_negative(op, "eps", eps);
  const functors::Activation functor = activation_from(activation, parameters);
  check_monotone(op, functor);
  const at::Tensor centre = q.contiguous();
  const at::Tensor target = v.contiguous();
  at::Tensor z = at::empty_like(centre);
  at::Tensor a = at::empty_like(centre);
  const at::Tensor direction = at::empty_like(centre);
  passes::joint_step(target, target, target, centre, centre, functor, /*omega=*/0, /*step=*/0, eps, ratio, z,
                     a, direction);
  return {z, a};
}

void implement(torch::Library& m) {
  m.impl("preimage_projection", &preimage_projection_kernel);
  m.impl("joint_state_update", &joint_state_update_kernel);
}

}  // namespace

at::Tensor preimage_projection(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                               std::string_view activation, c10::ArrayRef<double> parameters, double eps) {
  static const auto op = find_operator<PreimageProjectionSignature>("torchbcd::preimage_projection");
  return op.call(q, a, z, activation, parameters, eps);
}

std::tuple<at::Tensor, at::Tensor> joint_state_update(const at::Tensor& q, const at::Tensor& v,
                                                      std::string_view activation,
                                                      c10::ArrayRef<double> parameters, double ratio,
                                                      double eps) {
  static const auto op = find_operator<JointStateUpdateSignature>("torchbcd::joint_state_update");
  return op.call(q, v, activation, parameters, ratio, eps);
}

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  m.def(
      "preimage_projection(Tensor q, Tensor a, Tensor z, str activation, float[] parameters, float eps) -> "
      "Tensor");
  m.def(
      "joint_state_update(Tensor q, Tensor v, str activation, float[] parameters, float ratio, float eps) -> "
      "(Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const char* op : {"preimage_projection", "joint_state_update"}) {
    m.impl(op, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
