// passes::line_move: a state block's move along a line with the value of its problem there, for piecewise
// linear activations. A pass of its own: each row also has its part of two matrix products.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <type_traits>
#include <variant>
#include <vector>

#include "functors/summed.h"
#include "kernels/cpu/loops.h"
#include "kernels/passes.h"

namespace torchbcd::passes {
namespace {

// The move of n rows: contiguous matrices of states (n, units) and of outputs (n, outputs), sums (n, 1), and
// W with a row for each unit.
template <typename T, typename Move>
struct Problem {
  Move move;
  const T *u, *v, *z, *s;  // states
  const T* residual;       // R, outputs
  const T* product;        // (J z) W^T, outputs
  const T* weight;         // W^T, (units, outputs)
  int64_t units, outputs;
  double ratio;
  T *slack, *change;          // states
  double *slack_sums, *sums;  // sums
};

template <typename T>
TORCHBCD_HOST_DEVICE double sum_of_squares_of(const T* values, int64_t n) {
  return cpu::sum_in_lanes(n, [values](int64_t i) { return functors::square(values[i]); });
}

// Where the move leads in a row, and the value there, |R - dv W^T|^2 + ratio |s'|^2. The product dv W^T is
// that of the linearised move, scale (J z) W^T, but for the units beyond a kink.
template <typename T, typename Move>
TORCHBCD_TARGET_CLONES void move_row(const Problem<T, Move>& problem, int64_t row, T* beyond, T* left) {
  const Move move = problem.move;
  const int64_t state = row * problem.units;
  TORCHBCD_VECTORIZE
  for (int64_t j = 0; j < problem.units; ++j) {
    const int64_t at = state + j;
    const functors::LineMoved<T> moved = move(problem.u[at], problem.v[at], problem.z[at], problem.s[at]);
    problem.slack[at] = moved.slack;
    problem.change[at] = moved.change;
    beyond[j] = moved.beyond;
  }
  const int64_t output = row * problem.outputs;
  TORCHBCD_VECTORIZE
  for (int64_t k = 0; k < problem.outputs; ++k) {
    left[k] = problem.residual[output + k] - move.scale * problem.product[output + k];
  }
  for (int64_t j = 0; j < problem.units; ++j) {
    if (beyond[j] != T(0)) {
      const T* column = problem.weight + j * problem.outputs;
      const T by = beyond[j];
      TORCHBCD_VECTORIZE
      for (int64_t k = 0; k < problem.outputs; ++k) {
        left[k] -= by * column[k];
      }
    }
  }
  problem.slack_sums[row] = sum_of_squares_of(problem.slack + state, problem.units);
  problem.sums[row] = sum_of_squares_of(left, problem.outputs) + problem.ratio * problem.slack_sums[row];
}

template <typename T>
const T* data(const at::Tensor& t) {
  return t.const_data_ptr<T>();
}

}  // namespace

bool has_line_move(const functors::AnyActivation& activation, const at::Device& device) {
  return device.is_cpu() && std::visit([](const auto& f) { return f.piecewise_linear; }, activation);
}

LineMove line_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                   const functors::AnyActivation& activation, double keep, double ratio,
                   const at::Tensor& residual, const at::Tensor& product, const at::Tensor& weight,
                   const at::Tensor& scale, const at::Tensor& s_out, const at::Tensor& dv) {
  for (const at::Tensor& t : {u, v, z, s, residual, product, s_out, dv}) {
    TORCH_INTERNAL_ASSERT(t.is_contiguous() && t.scalar_type() == u.scalar_type());
  }
  const at::TensorOptions sums = u.options().dtype(at::kDouble);
  const LineMove result = {at::empty({u.size(0), 1}, sums), at::empty({u.size(0), 1}, sums)};
  const at::Tensor columns = weight.t().contiguous();
  std::visit(
      [&](const auto& f) {
        using Activation = std::decay_t<decltype(f)>;
        if constexpr (Activation::piecewise_linear) {
          AT_DISPATCH_FLOATING_TYPES(u.scalar_type(), "line_move", [&] {
            const functors::LineMove<scalar_t, Activation> move{f, static_cast<scalar_t>(keep),
                                                                static_cast<scalar_t>(scale.item<double>())};
            const Problem<scalar_t, decltype(move)> problem{move,
                                                            data<scalar_t>(u),
                                                            data<scalar_t>(v),
                                                            data<scalar_t>(z),
                                                            data<scalar_t>(s),
                                                            data<scalar_t>(residual),
                                                            data<scalar_t>(product),
                                                            data<scalar_t>(columns),
                                                            u.size(1),
                                                            weight.size(0),
                                                            ratio,
                                                            s_out.mutable_data_ptr<scalar_t>(),
                                                            dv.mutable_data_ptr<scalar_t>(),
                                                            result.slack_sums.mutable_data_ptr<double>(),
                                                            result.sums.mutable_data_ptr<double>()};
            const int64_t grain =
                std::max<int64_t>(1, functors::kSumChunk / (problem.units + problem.outputs));
            at::parallel_for(0, u.size(0), grain, [&](int64_t first, int64_t last) {
              std::vector<scalar_t> beyond(problem.units);
              std::vector<scalar_t> left(problem.outputs);
              for (int64_t row = first; row < last; ++row) {
                move_row(problem, row, beyond.data(), left.data());
              }
            });
          });
        } else {
          TORCH_INTERNAL_ASSERT(false, "line_move is for piecewise linear activations");
        }
      },
      activation);
  return result;
}

}  // namespace torchbcd::passes
