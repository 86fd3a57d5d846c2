// The summed kernels of either device: each functor of functors/summed.h in the iterator's type, for the
// activation chosen, handed to `Launch::run<T>(iterator, layout, functor[, scale])`, which is all that a
// device writes.
#pragma once

#include <ATen/Dispatch.h>

#include <variant>

#include "functors/summed.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {

// f(functor) for the functor that `chosen` holds, in the iterator's type.
#define TORCHBCD_VISIT(NAME, CHOSEN, ...) \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] { std::visit([&](auto f) __VA_ARGS__, CHOSEN); })

// The same; what is not monotone was refused
// before.
#define TORCHBCD_VISIT_MONOTONE(NAME, CHOSEN, ...)                        \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] {             \
    std::visit(                                                           \
        [&](auto f) {                                                     \
          if constexpr (functors::has_preimages<decltype(f)>) __VA_ARGS__ \
        },                                                                \
        CHOSEN);                                                          \
  })

template <typename Launch>
struct SummedKernels {
  static void sum_of_squares(at::TensorIteratorBase& iter, const SumLayout& layout) {
    AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "sum_of_squares", [&] {
      Launch::template run<scalar_t>(iter, layout, functors::SumOfSquares<scalar_t>{});
    });
  }

  static void difference(at::TensorIteratorBase& iter, const SumLayout& layout) {
    AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "difference", [&] {
      Launch::template run<scalar_t>(iter, layout, functors::Difference<scalar_t>{});
    });
  }

  static void extrapolated_difference(at::TensorIteratorBase& iter, const SumLayout& layout, double omega) {
    AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "extrapolated_difference", [&] {
      Launch::template run<scalar_t>(
          iter, layout, functors::ExtrapolatedDifference<scalar_t>{static_cast<scalar_t>(omega)});
    });
  }

  static void residual_step(at::TensorIteratorBase& iter, const SumLayout& layout, double step) {
    AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "residual_step", [&] {
      Launch::template run<scalar_t>(iter, layout,
                                     functors::ResidualStep<scalar_t>{static_cast<scalar_t>(step)});
    });
  }

  static void relaxed_residual(at::TensorIteratorBase& iter, const SumLayout& layout, double keep,
                               double gain) {
    AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "relaxed_residual", [&] {
      Launch::template run<scalar_t>(
          iter, layout,
          functors::RelaxedResidual<scalar_t>{static_cast<scalar_t>(keep), static_cast<scalar_t>(gain)});
    });
  }

  static void preimage_projection(at::TensorIteratorBase& iter, const SumLayout& layout,
                                  const functors::Activation& chosen, double eps) {
    TORCHBCD_VISIT_MONOTONE("preimage_projection", chosen, {
      Launch::template run<scalar_t>(iter, layout,
                                     functors::PreimageProjection<scalar_t, decltype(f)>{f, eps});
    });
  }

  static void image_step(at::TensorIteratorBase& iter, const SumLayout& layout,
                         const functors::Activation& chosen, double omega, double step, double eps) {
    TORCHBCD_VISIT_MONOTONE("image_step", chosen, {
      Launch::template run<scalar_t>(
          iter, layout,
          functors::ImageStep<scalar_t, decltype(f)>{
              f, static_cast<scalar_t>(omega), static_cast<scalar_t>(step), static_cast<scalar_t>(eps)});
    });
  }

  static void joint_step(at::TensorIteratorBase& iter, const SumLayout& layout,
                         const functors::Activation& chosen, double omega, double step, double eps,
                         double ratio) {
    TORCHBCD_VISIT_MONOTONE("joint_step", chosen, {
      Launch::template run<scalar_t>(iter, layout,
                                     functors::JointStep<scalar_t, decltype(f)>{
                                         f, static_cast<scalar_t>(omega), static_cast<scalar_t>(step),
                                         static_cast<scalar_t>(eps), static_cast<scalar_t>(ratio)});
    });
  }

  static void state_direction(at::TensorIteratorBase& iter, const SumLayout& layout,
                              const functors::Activation& chosen, double ratio) {
    TORCHBCD_VISIT("state_direction", chosen, {
      Launch::template run<scalar_t>(
          iter, layout, functors::StateDirection<scalar_t, decltype(f)>{f, static_cast<scalar_t>(ratio)});
    });
  }

  static void state_move(at::TensorIteratorBase& iter, const SumLayout& layout,
                         const functors::Activation& chosen, double keep, const double* scale) {
    TORCHBCD_VISIT("state_move", chosen, {
      Launch::template run<scalar_t>(
          iter, layout, functors::StateMove<scalar_t, decltype(f)>{f, static_cast<scalar_t>(keep), 0}, scale);
    });
  }
};

#undef TORCHBCD_VISIT_MONOTONE

}  // namespace torchbcd::kernels
