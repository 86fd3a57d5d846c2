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

// What the move knows beside the entries of the state, for n rows: contiguous matrices with `outputs`
// columns, and W with a row for each unit.
template <typename T>
struct Problem {
  const T* residual;  // R, (n, outputs)
  const T* product;   // (J z) W^T, (n, outputs)
  const T* weight;    // W^T, (units, outputs)
  int64_t units, outputs;
  double ratio;
};

template <typename T>
TORCHBCD_HOST_DEVICE double sum_of_squares_of(const T* values, int64_t n) {
  return cpu::sum_in_lanes(n, [values](int64_t i) { return values[i] * values[i]; });
}

// One row of the move: where it leads, and the value there, |R - dv W^T|^2 + ratio |s'|^2. The product
// dv W^T is that of the linearised move, scale (J z) W^T, but for the units beyond a kink.
template <typename T, typename Move>
TORCHBCD_TARGET_CLONES double line_move_row(const Move& move, const Problem<T>& problem, const T* u,
                                            const T* v, const T* z, const T* s, const T* residual,
                                            const T* product, T* slack, T* change, T* beyond, T* left,
                                            double* slack_sum) {
  TORCHBCD_VECTORIZE
  for (int64_t j = 0; j < problem.units; ++j) {
    const functors::LineMoved<T> moved = move(u[j], v[j], z[j], s[j]);
    slack[j] = moved.slack;
    change[j] = moved.change;
    beyond[j] = moved.beyond;
  }
  TORCHBCD_VECTORIZE
  for (int64_t k = 0; k < problem.outputs; ++k) {
    left[k] = residual[k] - move.scale * product[k];
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
  *slack_sum = sum_of_squares_of(slack, problem.units);
  return sum_of_squares_of(left, problem.outputs) + problem.ratio * *slack_sum;
}

template <typename T>
const T* data(const at::Tensor& t) {
  return t.const_data_ptr<T>();
}

template <typename T, typename Activation>
void move_rows(const functors::LineMove<T, Activation>& move, const Problem<T>& problem,
               at::ArrayRef<at::Tensor> in, const at::Tensor& s_out, const at::Tensor& dv,
               const LineMove& result) {
  const T* u = data<T>(in[0]);
  const T* v = data<T>(in[1]);
  const T* z = data<T>(in[2]);
  const T* s = data<T>(in[3]);
  T* const slack = s_out.mutable_data_ptr<T>();
  T* const change = dv.mutable_data_ptr<T>();
  double* const slack_sums = result.slack_sums.mutable_data_ptr<double>();
  double* const sums = result.sums.mutable_data_ptr<double>();
  const int64_t grain = std::max<int64_t>(1, functors::kSumChunk / (problem.units + problem.outputs));
  at::parallel_for(0, in[0].size(0), grain, [&](int64_t first, int64_t last) {
    std::vector<T> beyond(problem.units);
    std::vector<T> left(problem.outputs);
    for (int64_t r = first; r < last; ++r) {
      const int64_t at = r * problem.units;
      sums[r] =
          line_move_row<T>(move, problem, u + at, v + at, z + at, s + at,
                           problem.residual + r * problem.outputs, problem.product + r * problem.outputs,
                           slack + at, change + at, beyond.data(), left.data(), slack_sums + r);
    }
  });
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
            const Problem<scalar_t> problem{data<scalar_t>(residual), data<scalar_t>(product),
                                            data<scalar_t>(columns),  u.size(1),
                                            weight.size(0),           ratio};
            move_rows(move, problem, {u, v, z, s}, s_out, dv, result);
          });
        } else {
          TORCH_INTERNAL_ASSERT(false, "line_move is for piecewise linear activations");
        }
      },
      activation);
  return result;
}

}  // namespace torchbcd::passes
