#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "ops/cpu/loops.h"
#include "ops/kernels.h"
#include "ops/summed_dispatch.h"

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

struct Launch {
  // `scale`, where given, is the functor's, which the host may not read on every device.
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const SumLayout& layout, const Functor& functor,
                  const double* scale = nullptr) {
    using Result = typename Functor::Result;
    constexpr size_t inputs = Functor::inputs;
    const int64_t n = iter.numel();
    const int64_t chunks = (n + layout.chunk - 1) / layout.chunk;
    const int64_t grain = std::max<int64_t>(1, kSumChunk / layout.chunk);
    at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
      Functor f = functor;
      if constexpr (requires { f.scale; }) {
        f.scale = static_cast<T>(*scale);
      }
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
        summed_loop<T, Functor, Result>(f, std::min(layout.chunk, n - begin), out, in,
                                        layout.partial + chunk * Result::sums,
                                        std::make_index_sequence<inputs>{});
      }
    });
  }
};

using Kernels = SummedKernels<Launch>;

template <typename T>
double sum_of_squares_of(const T* values, int64_t n) {
  double lane[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) {
      lane[j] += static_cast<double>(values[i + j] * values[i + j]);
    }
  }
  for (; i < n; ++i) {
    lane[0] += static_cast<double>(values[i] * values[i]);
  }
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// One row of the move: where it leads, and the value there, |R - dv W^T|^2 + ratio |s'|^2. The product
// dv W^T is that of the linearised move, scale (J z) W^T, but for the units beyond a kink.
template <typename T, typename Move>
TORCHBCD_TARGET_CLONES double line_move_row(const Move& move, const LineMoveRows& rows, const T* u,
                                            const T* v, const T* z, const T* s, const T* residual,
                                            const T* product, T* slack, T* change, T* beyond, T* left,
                                            double* slack_sum) {
  const T* weight = static_cast<const T*>(rows.weight);
  TORCHBCD_VECTORIZE
  for (int64_t j = 0; j < rows.units; ++j) {
    const functors::LineMoved<T> moved = move(u[j], v[j], z[j], s[j]);
    slack[j] = moved.slack;
    change[j] = moved.change;
    beyond[j] = moved.beyond;
  }
  TORCHBCD_VECTORIZE
  for (int64_t k = 0; k < rows.outputs; ++k) {
    left[k] = residual[k] - move.scale * product[k];
  }
  for (int64_t j = 0; j < rows.units; ++j) {
    if (beyond[j] != T(0)) {
      const T* column = weight + j * rows.outputs;
      const T by = beyond[j];
      TORCHBCD_VECTORIZE
      for (int64_t k = 0; k < rows.outputs; ++k) {
        left[k] -= by * column[k];
      }
    }
  }
  *slack_sum = sum_of_squares_of(slack, rows.units);
  return sum_of_squares_of(left, rows.outputs) + rows.ratio * *slack_sum;
}

void line_move_cpu(at::TensorIteratorBase& iter, const LineMoveRows& rows,
                   const functors::Activation& chosen) {
  TORCHBCD_VISIT("line_move", chosen, {
    if constexpr (functors::is_piecewise_linear<decltype(f)>) {
      const int64_t n = iter.numel() / rows.units;
      std::array<scalar_t*, 2> out = {static_cast<scalar_t*>(iter.data_ptr(0)),
                                      static_cast<scalar_t*>(iter.data_ptr(1))};
      std::array<const scalar_t*, 4> in = {};
      for (int t = 0; t < 4; ++t) {
        in[t] = static_cast<const scalar_t*>(iter.data_ptr(2 + t));
      }
      const auto* residual = static_cast<const scalar_t*>(rows.residual);
      const auto* product = static_cast<const scalar_t*>(rows.product);
      const int64_t grain = std::max<int64_t>(1, kSumChunk / (rows.units + rows.outputs));
      at::parallel_for(0, n, grain, [&](int64_t first, int64_t last) {
        std::vector<scalar_t> beyond(rows.units);
        std::vector<scalar_t> left(rows.outputs);
        const functors::LineMove<scalar_t, decltype(f)> move{f, static_cast<scalar_t>(rows.keep),
                                                             static_cast<scalar_t>(rows.scale)};
        for (int64_t r = first; r < last; ++r) {
          const int64_t at = r * rows.units;
          rows.sums[r] =
              line_move_row<scalar_t>(move, rows, in[0] + at, in[1] + at, in[2] + at, in[3] + at,
                                      residual + r * rows.outputs, product + r * rows.outputs, out[0] + at,
                                      out[1] + at, beyond.data(), left.data(), rows.slack_sums + r);
        }
      });
    }
  });
}

#undef TORCHBCD_VISIT

const SumKernel::OnCPU register_sum_of_squares(sum_of_squares, &Kernels::sum_of_squares);
const SumKernel::OnCPU register_difference(difference, &Kernels::difference);
const ScaledSumKernel::OnCPU register_extrapolated(extrapolated_difference,
                                                   &Kernels::extrapolated_difference);
const ScaledSumKernel::OnCPU register_residual_step(residual_step, &Kernels::residual_step);
const BoxKernel::OnCPU register_preimage_projection(preimage_projection, &Kernels::preimage_projection);
const ImageStepKernel::OnCPU register_image_step(image_step, &Kernels::image_step);
const JointStepKernel::OnCPU register_joint_step(joint_step, &Kernels::joint_step);
const RelaxedResidualKernel::OnCPU register_relaxed_residual(relaxed_residual, &Kernels::relaxed_residual);
const StateDirectionKernel::OnCPU register_state_direction(state_direction, &Kernels::state_direction);
const StateMoveKernel::OnCPU register_state_move(state_move, &Kernels::state_move);
const LineMoveKernel::OnCPU register_line_move(line_move, &line_move_cpu);

}  // namespace
}  // namespace torchbcd::kernels
