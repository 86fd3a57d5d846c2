#include "engine/blocks.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include <utility>

namespace torchbcd {

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

namespace {

// Floating-point operations of the two forms of the V block, each an estimate in double: with m the
// side that is factored and M the other, the Gram matrix, the factor and the solves cost m^2 M +
// m^3/3 + 2 n m^2. The output side needs two products with W, the input side a third one for the
// new residual.
bool output_side_is_cheaper(double n, double outputs, double inputs) {
  const double output_side = outputs * outputs * inputs + outputs * outputs * outputs / 3 +
                             2 * n * outputs * outputs + 4 * n * outputs * inputs;
  const double input_side = inputs * inputs * outputs + inputs * inputs * inputs / 3 +
                            2 * n * inputs * inputs + 6 * n * outputs * inputs;
  return output_side <= input_side;
}

// The same for the W block: n d^2 + d^3/3 + 2 d^2 d' (primal) or n^2 d + n^3/3 + 2 n^2 d' (dual).
bool primal_is_cheaper(double n, double outputs, double inputs) {
  return n * inputs * inputs + inputs * inputs * inputs / 3 + 2 * inputs * inputs * outputs <=
         n * n * inputs + n * n * n / 3 + 2 * n * n * outputs;
}

}  // namespace

StateBlock::StateBlock(AffineMap map, double gamma, double rho, int64_t rows, const char* where)
    : map_(std::move(map)),
      ratio_(gamma / rho),
      output_side_(output_side_is_cheaper(static_cast<double>(rows), static_cast<double>(map_.weight.size(0)),
                                          static_cast<double>(map_.weight.size(1)))),
      factor_(factor({.a = output_side_ ? map_.weight.t() : map_.weight, .ridge = ratio_}, where)) {}

void StateBlock::solve_(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual_out) const {
  at::Tensor state = v;
  at::Tensor residual = residual_out;
  affine_residual_out(u, state, map_, residual);
  if (output_side_) {
    factor_.solve_(residual);
    state.addmm_(residual, map_.weight);
    if (ratio_ != 1) {
      residual.mul_(ratio_);
    }
  } else {
    const at::Tensor change = at::mm(residual, map_.weight);
    factor_.solve_(change);
    state.add_(change);
    residual.addmm_(change, map_.weight.t(), 1, -1);
  }
}

WeightBlock::WeightBlock(at::Tensor v, int64_t outputs, bool bias, double rho, double alpha,
                         bool always_primal, const char* where)
    : v_(std::move(v)),
      bias_(bias),
      primal_(always_primal ||
              primal_is_cheaper(static_cast<double>(v_.size(0)), static_cast<double>(outputs),
                                static_cast<double>(v_.size(1)))),
      factor_(primal_ ? factor({.a = v_, .ridge = alpha / rho, .ones_column = bias}, where)
                      : factor({.a = v_.t(), .ridge = alpha / rho, .ones_row = bias}, where)) {}

void WeightBlock::solve(const at::Tensor& residual, const AffineMap& previous, const AffineMap& next) const {
  const int64_t inputs = v_.size(1);
  const int64_t outputs = residual.size(1);
  if (!primal_) {
    factor_.solve_(residual.t());
  }
  at::Tensor change = at::empty({outputs, inputs + (bias_ ? 1 : 0)}, residual.options());
  at::Tensor weight_change = change.narrow(1, 0, inputs);
  at::mm_out(weight_change, residual.t(), v_);
  if (bias_) {
    at::Tensor bias_change = change.select(1, inputs);
    at::sum_out(bias_change, residual, 0);
  }
  if (primal_) {
    factor_.solve_(change);
  }
  at::Tensor weight = next.weight;
  at::add_out(weight, previous.weight, weight_change);
  if (bias_) {
    at::Tensor new_bias = next.bias;
    at::add_out(new_bias, previous.bias, change.select(1, inputs));
  }
}

}  // namespace torchbcd
