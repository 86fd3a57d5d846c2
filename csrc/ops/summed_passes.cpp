#include "ops/summed_passes.h"

#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <array>

#include "ops/kernels.h"

namespace torchbcd::passes {
namespace {

at::TensorIterator contiguous_iterator(at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs) {
  at::TensorIteratorConfig config;
  config.resize_outputs(false).check_all_same_dtype(true);
  for (const at::Tensor& output : outputs) {
    config.add_owned_output(output);
  }
  if (outputs.empty()) {
    config.add_owned_output(inputs.front());  // an iterator must have one; nothing is written to it
  }
  for (const at::Tensor& input : inputs) {
    config.add_owned_const_input(input);
  }
  at::TensorIterator iterator = config.build();
  TORCH_INTERNAL_ASSERT(iterator.is_contiguous());
  return iterator;
}

// Runs a summed kernel over `outputs` and `inputs`; returns the sums of every chunk, (chunks, sums).
template <typename KernelType, typename... Parameters>
at::Tensor run_chunks(int64_t chunk, int64_t sums, KernelType& kernel, at::ArrayRef<at::Tensor> outputs,
                      at::ArrayRef<at::Tensor> inputs, const Parameters&... parameters) {
  auto iterator = contiguous_iterator(outputs, inputs);
  const int64_t chunks = (iterator.numel() + chunk - 1) / chunk;
  at::Tensor partial = at::empty({chunks, sums}, inputs.front().options().dtype(at::kDouble));
  if (chunks > 0) {
    kernel(iterator, kernels::SumLayout{chunk, partial.mutable_data_ptr<double>()}, parameters...);
  }
  return partial;
}

// The sums over all elements.
template <size_t sums, typename KernelType, typename... Parameters>
std::array<double, sums> run(KernelType& kernel, at::ArrayRef<at::Tensor> outputs,
                             at::ArrayRef<at::Tensor> inputs, const Parameters&... parameters) {
  const at::Tensor partial = run_chunks(kernels::kSumChunk, sums, kernel, outputs, inputs, parameters...);
  const at::Tensor result = at::sum(partial, 0).cpu();
  std::array<double, sums> total = {};
  for (size_t k = 0; k < sums; ++k) {
    total[k] = result.const_data_ptr<double>()[k];
  }
  return total;
}

// One sum for each row.
template <typename KernelType, typename... Parameters>
at::Tensor run_rows(KernelType& kernel, at::ArrayRef<at::Tensor> outputs, at::ArrayRef<at::Tensor> inputs,
                    const Parameters&... parameters) {
  return run_chunks(std::max<int64_t>(1, inputs.front().size(1)), 1, kernel, outputs, inputs, parameters...);
}

}  // namespace

double sum_of_squares(const at::Tensor& x) { return run<1>(kernels::sum_of_squares, {}, {x})[0]; }

std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) {
    return {};
  }
  std::vector<at::Tensor> sums;
  for (const at::Tensor& t : tensors) {
    sums.push_back(at::sum(run_chunks(kernels::kSumChunk, 1, kernels::sum_of_squares, {}, {t}), 0));
  }
  const at::Tensor fetched = at::stack(sums).cpu();
  const double* data = fetched.const_data_ptr<double>();
  return {data, data + fetched.numel()};
}

double difference(const at::Tensor& a, const at::Tensor& b, const at::Tensor& r) {
  return run<1>(kernels::difference, {r}, {a, b})[0];
}

double extrapolated_difference(const at::Tensor& q, const at::Tensor& q_previous, const at::Tensor& z,
                               double omega, const at::Tensor& r) {
  return run<1>(kernels::extrapolated_difference, {r}, {q, q_previous, z}, omega)[0];
}

double residual_step(const at::Tensor& r, const at::Tensor& d, const at::Tensor& z, double step,
                     const at::Tensor& q) {
  return run<1>(kernels::residual_step, {q}, {r, d, z}, step)[0];
}

double preimage_projection(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                           const functors::Activation& activation, double eps, const at::Tensor& z_out) {
  return run<1>(kernels::preimage_projection, {z_out}, {q, a, z}, activation, eps)[0];
}

StateStep image_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                     const at::Tensor& z, const functors::Activation& activation, double omega, double step,
                     double eps, const at::Tensor& a_out, const at::Tensor& d) {
  const auto sums =
      run<2>(kernels::image_step, {a_out, d}, {a, a_previous, g, z}, activation, omega, step, eps);
  return {sums[0], sums[1]};
}

StateStep joint_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                     const at::Tensor& z, const at::Tensor& q, const functors::Activation& activation,
                     double omega, double step, double eps, double ratio, const at::Tensor& z_out,
                     const at::Tensor& a_out, const at::Tensor& d) {
  const auto sums = run<3>(kernels::joint_step, {z_out, a_out, d}, {a, a_previous, g, z, q}, activation,
                           omega, step, eps, ratio);
  return {sums[0], sums[2], sums[1]};
}

at::Tensor row_sums_of_squares(const at::Tensor& x) { return run_rows(kernels::sum_of_squares, {}, {x}); }

at::Tensor relaxed_residual(const at::Tensor& r, const at::Tensor& x, double keep, double gain,
                            const at::Tensor& r_out) {
  return run_rows(kernels::relaxed_residual, {r_out}, {r, x}, keep, gain);
}

at::Tensor state_direction(const at::Tensor& g, const at::Tensor& u, const at::Tensor& s,
                           const functors::Activation& activation, double ratio, const at::Tensor& z,
                           const at::Tensor& jz) {
  return run_rows(kernels::state_direction, {z, jz}, {g, u, s}, activation, ratio);
}

at::Tensor state_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                      const functors::Activation& activation, double keep, const at::Tensor& scale,
                      const at::Tensor& s_out, const at::Tensor& dv) {
  return run_rows(kernels::state_move, {s_out, dv}, {u, v, z, s}, activation, keep,
                  scale.const_data_ptr<double>());
}

bool has_line_move(const functors::Activation& activation, const at::Device& device) {
  return device.is_cpu() &&
         std::visit([](auto f) { return functors::is_piecewise_linear<decltype(f)>; }, activation);
}

LineMove line_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                   const functors::Activation& activation, double keep, double ratio,
                   const at::Tensor& residual, const at::Tensor& product, const at::Tensor& weight,
                   const at::Tensor& scale, const at::Tensor& s_out, const at::Tensor& dv) {
  const at::TensorOptions sums = u.options().dtype(at::kDouble);
  const LineMove result = {at::empty({u.size(0), 1}, sums), at::empty({u.size(0), 1}, sums)};
  const at::Tensor columns = weight.t().contiguous();
  auto iterator = contiguous_iterator({s_out, dv}, {u, v, z, s});
  kernels::line_move(iterator,
                     {residual.const_data_ptr(), product.const_data_ptr(), columns.const_data_ptr(),
                      u.size(1), weight.size(0), ratio, keep, scale.item<double>(),
                      result.slack_sums.mutable_data_ptr<double>(), result.sums.mutable_data_ptr<double>()},
                     activation);
  return result;
}

}  // namespace torchbcd::passes
