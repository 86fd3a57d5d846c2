#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

#include "functors/summed.h"
#include "ops/cpu/loops.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

constexpr int64_t kTile = 64;  // elements whose terms wait on the stack to be added up in float64

// Elements [0, n): the results into `out`, the sums into `sums`. The terms are added in a fixed order.
template <typename T, typename Functor, typename Result, size_t... In>
TORCHBCD_TARGET_CLONES void summed_loop(Functor f, int64_t n, std::array<T*, 3> out,
                                        std::array<const T*, sizeof...(In)> in, double* sums,
                                        std::index_sequence<In...>) {
  double total[Result::sums] = {};
  T term[Result::sums][kTile];
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t size = std::min(kTile, n - begin);
    TORCHBCD_VECTORIZE
    for (int64_t i = 0; i < size; ++i) {
      const Result result = f(in[In][begin + i]...);
      if constexpr (Result::outputs > 0) {
        out[0][begin + i] = result.out[0];
      }
      if constexpr (Result::outputs > 1) {
        out[1][begin + i] = result.out[1];
      }
      if constexpr (Result::outputs > 2) {
        out[2][begin + i] = result.out[2];
      }
      for (int k = 0; k < Result::sums; ++k) {
        term[k][i] = result.sum[k];
      }
    }
    for (int k = 0; k < Result::sums; ++k) {
      double lane[8] = {};
      int64_t i = 0;
      for (; i + 8 <= size; i += 8) {
        for (int j = 0; j < 8; ++j) {
          lane[j] += static_cast<double>(term[k][i + j]);
        }
      }
      for (; i < size; ++i) {
        lane[0] += static_cast<double>(term[k][i]);
      }
      total[k] += ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
  }
  for (int k = 0; k < Result::sums; ++k) {
    sums[k] = total[k];
  }
}

// `scale`, where given, is the functor's own of each chunk.
template <typename T, typename Functor>
void summed(at::TensorIteratorBase& iter, const SumLayout& layout, const Functor& functor,
            const double* scale = nullptr) {
  using Result = typename Functor::Result;
  constexpr size_t inputs = Functor::inputs;
  const int64_t n = iter.numel();
  const int64_t chunks = (n + layout.chunk - 1) / layout.chunk;
  const int64_t grain = std::max<int64_t>(1, kSumChunk / layout.chunk);
  at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
    Functor f = functor;
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * layout.chunk;
      std::array<T*, 3> out = {};
      std::array<const T*, inputs> in = {};
      for (int t = 0; t < Result::outputs; ++t) {
        out[t] = static_cast<T*>(iter.data_ptr(t)) + begin;
      }
      for (size_t t = 0; t < inputs; ++t) {
        in[t] = static_cast<const T*>(iter.data_ptr(Result::outputs + static_cast<int>(t))) + begin;
      }
      if constexpr (requires { f.scale; }) {
        f.scale = static_cast<T>(scale[chunk]);
      }
      summed_loop<T, Functor, Result>(f, std::min(layout.chunk, n - begin), out, in,
                                      layout.partial + chunk * Result::sums,
                                      std::make_index_sequence<inputs>{});
    }
  });
}

void sum_of_squares_cpu(at::TensorIteratorBase& iter, const SumLayout& layout) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "sum_of_squares",
                             [&] { summed<scalar_t>(iter, layout, functors::SumOfSquares<scalar_t>{}); });
}

void difference_cpu(at::TensorIteratorBase& iter, const SumLayout& layout) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "difference",
                             [&] { summed<scalar_t>(iter, layout, functors::Difference<scalar_t>{}); });
}

void extrapolated_difference_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, double omega) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "extrapolated_difference", [&] {
    summed<scalar_t>(iter, layout, functors::ExtrapolatedDifference<scalar_t>{static_cast<scalar_t>(omega)});
  });
}

void residual_step_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, double step) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "residual_step", [&] {
    summed<scalar_t>(iter, layout, functors::ResidualStep<scalar_t>{static_cast<scalar_t>(step)});
  });
}

void relaxed_residual_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, double keep, double gain) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "relaxed_residual", [&] {
    summed<scalar_t>(
        iter, layout,
        functors::RelaxedResidual<scalar_t>{static_cast<scalar_t>(keep), static_cast<scalar_t>(gain)});
  });
}

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

void preimage_projection_cpu(at::TensorIteratorBase& iter, const SumLayout& layout,
                             const functors::Activation& chosen, double eps) {
  TORCHBCD_VISIT_MONOTONE("preimage_projection", chosen, {
    summed<scalar_t>(iter, layout, functors::PreimageProjection<scalar_t, decltype(f)>{f, eps});
  });
}

void image_step_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, const functors::Activation& chosen,
                    double omega, double step, double eps) {
  TORCHBCD_VISIT_MONOTONE("image_step", chosen, {
    summed<scalar_t>(
        iter, layout,
        functors::ImageStep<scalar_t, decltype(f)>{f, static_cast<scalar_t>(omega),
                                                   static_cast<scalar_t>(step), static_cast<scalar_t>(eps)});
  });
}

void joint_step_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, const functors::Activation& chosen,
                    double omega, double step, double eps, double ratio) {
  TORCHBCD_VISIT_MONOTONE("joint_step", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::JointStep<scalar_t, decltype(f)>{
                         f, static_cast<scalar_t>(omega), static_cast<scalar_t>(step),
                         static_cast<scalar_t>(eps), static_cast<scalar_t>(ratio)});
  });
}

void state_direction_cpu(at::TensorIteratorBase& iter, const SumLayout& layout,
                         const functors::Activation& chosen, double ratio) {
  TORCHBCD_VISIT("state_direction", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::StateDirection<scalar_t, decltype(f)>{f, static_cast<scalar_t>(ratio)});
  });
}

void state_move_cpu(at::TensorIteratorBase& iter, const SumLayout& layout, const functors::Activation& chosen,
                    double keep, const double* row_scale) {
  TORCHBCD_VISIT("state_move", chosen, {
    summed<scalar_t>(iter, layout,
                     functors::StateMove<scalar_t, decltype(f)>{f, static_cast<scalar_t>(keep), 0},
                     row_scale);
  });
}

#undef TORCHBCD_VISIT
#undef TORCHBCD_VISIT_MONOTONE

const SumKernel::OnCPU register_sum_of_squares(sum_of_squares, &sum_of_squares_cpu);
const SumKernel::OnCPU register_difference(difference, &difference_cpu);
const ScaledSumKernel::OnCPU register_extrapolated(extrapolated_difference, &extrapolated_difference_cpu);
const ScaledSumKernel::OnCPU register_residual_step(residual_step, &residual_step_cpu);
const BoxKernel::OnCPU register_preimage_projection(preimage_projection, &preimage_projection_cpu);
const ImageStepKernel::OnCPU register_image_step(image_step, &image_step_cpu);
const JointStepKernel::OnCPU register_joint_step(joint_step, &joint_step_cpu);
const RelaxedResidualKernel::OnCPU register_relaxed_residual(relaxed_residual, &relaxed_residual_cpu);
const StateDirectionKernel::OnCPU register_state_direction(state_direction, &state_direction_cpu);
const StateMoveKernel::OnCPU register_state_move(state_move, &state_move_cpu);

}  // namespace
}  // namespace torchbcd::kernels
