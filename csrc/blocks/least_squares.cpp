#include "blocks/least_squares.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <c10/util/Exception.h>

#include <utility>

#include "linalg/row_storage.h"

namespace torchbcd {

namespace {

// Floating-point operations of the two forms of the V block, each an estimate in double: with m the side
// that is factored and M the other, the Gram matrix, the factor and the solves cost m^2 M + m^3/3 + 2 n m^2.
// The output side needs two products with W, the input side a third one for the new residual.
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

// X = M^T (M M^T + mu I)^{-1} T: where rows of M nearly depend on each other and mu is small, what the
// inverse is applied to is huge where M^T sends it to zero, and in float32 nothing is left of the product.
bool cancels(const SpdFactor& factor, at::ScalarType type) {
  constexpr double kLeastPivot = 1e-4;
  return type == at::kFloat && !(factor.least_pivot() > kLeastPivot);
}

// [residual^T v, column sums of residual], shape (d', d + 1) or (d', d), of the rows here; the sums with the
// weights' roots, by which v and the residual are multiplied already.
at::Tensor cross_product(const at::Tensor& residual, const at::Tensor& v, bool bias, const at::Tensor& root) {
  const int64_t inputs = v.size(1);
  at::Tensor product = at::empty({residual.size(1), inputs + (bias ? 1 : 0)}, residual.options());
  at::Tensor of_weight = product.narrow(1, 0, inputs);
  at::Tensor of_bias = bias ? product.select(1, inputs) : at::Tensor();
  for_each_part(residual.size(0), [&](int64_t begin, int64_t size) {
    const at::Tensor part = part_of(residual, begin, size);
    const at::Tensor rows = part_of(v, begin, size);
    if (begin == 0) {
      at::mm_out(of_weight, part.t(), rows);
    } else {
      of_weight.addmm_(part.t(), rows);
    }
    const at::Tensor weighted = bias && root.defined() ? part * part_of(root, begin, size) : part;
    if (bias && begin == 0) {
      at::sum_out(of_bias, weighted, 0);
    } else if (bias) {
      of_bias.add_(at::sum(weighted, 0));
    }
  });
  return product;
}

// The Gram matrix's, without ridges, of inputs that are `v` by now: times the weights' roots.
GramSystem primal_system(const WeightInputs& inputs, const at::Tensor& v) {
  return {.a = v,
          .ones_column = inputs.bias,
          .sum_over_ranks = inputs.sum_over_ranks,
          .ones = inputs.weights.root,
          .kept = inputs.kept_gram};
}

}  // namespace

HiddenStateBlock::HiddenStateBlock(AffineMap map, double gamma, double rho,
                                   const WeightRegularizer& regularizer, int64_t rows, const char* where)
    : map_(std::move(map)),
      shrink_(regularizer.quadratic() ? gamma / (gamma + regularizer.entries.l2) : 1),
      ratio_(gamma / (shrink_ * rho)),
      output_side_(output_side_is_cheaper(static_cast<double>(rows), static_cast<double>(map_.weight.size(0)),
                                          static_cast<double>(map_.weight.size(1)))) {
  if (!regularizer.quadratic()) {
    const at::Tensor gram = gram_matrix({.a = map_.weight, .ridge = ratio_});
    TORCH_CHECK_LINALG(all_finite(gram), where, ": the Gram matrix of the weights is not finite");
    problem_.emplace(gram, regularizer, 1 / rho, map_.weight.size(1), where);
  } else {
    factor_ = factor({.a = output_side_ ? map_.weight.t() : map_.weight, .ridge = ratio_}, where);
    if (output_side_ && cancels(factor_, map_.weight.scalar_type())) {
      output_side_ = false;
      factor_ = factor({.a = map_.weight, .ridge = ratio_}, where);
    }
  }
}

void HiddenStateBlock::solve_(const at::Tensor& v, const at::Tensor& previous, const at::Tensor& u,
                              const at::Tensor& residual_out) const {
  at::Tensor state = v;
  at::Tensor residual = residual_out;
  if (shrink_ != 1) {
    state.mul_(shrink_);
  }
  affine_residual_out(u, state, map_, residual);
  if (iterative()) {
    const at::Tensor solution = previous.clone();
    problem_->minimise_(solution, state, at::mm(residual, map_.weight));
    residual.addmm_(solution.sub(state), map_.weight.t(), 1, -1);
    state.copy_(solution);
  } else if (output_side_) {
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

WeightSums::WeightSums(const WeightInputs& inputs)
    : system_(primal_system(inputs, inputs.weights.scaled(inputs.v))) {
  if (system_.kept == nullptr || !system_.kept->defined()) {
    gram_.emplace(system_, system_.a.scalar_type());
  }
}

void WeightSums::start_cross(const at::Tensor& residual) {
  const at::Tensor& root = system_.ones;
  cross_ = cross_product(root.defined() ? residual * root : residual, system_.a, system_.ones_column, root);
  if (system_.sum_over_ranks) {
    pending_ = PendingSum(system_.sum_over_ranks, {cross_});
  }
}

GramSystem WeightSums::gram() {
  GramSystem system = system_;
  system.begun = gram_ ? &*gram_ : nullptr;
  return system;
}

at::Tensor WeightSums::cross() {
  pending_.wait();
  return std::move(cross_);
}

WeightBlock::WeightBlock(const WeightInputs& inputs, int64_t outputs, const WeightPenalties& penalties,
                         bool always_primal, const char* where, WeightSums* sums)
    : v_(sums != nullptr ? sums->gram().a : inputs.weights.scaled(inputs.v)),
      weights_(inputs.weights),
      bias_(inputs.bias),
      penalties_(penalties),
      primal_(always_primal || inputs.sum_over_ranks || !penalties.regularizer.quadratic() ||
              primal_is_cheaper(static_cast<double>(v_.size(0)), static_cast<double>(outputs),
                                static_cast<double>(v_.size(1)))),
      sums_(sums),
      sum_over_ranks_(inputs.sum_over_ranks),
      bias_l2_(penalties.regularize_bias ? penalties.regularizer.entries.l2 : 0),
      bias_gain_((penalties.alpha + penalties.regularizer.entries.l2) / (penalties.alpha_bias + bias_l2_)) {
  const double ridge = penalties.alpha / penalties.rho;
  const double bias_ridge = (penalties.alpha_bias + bias_l2_) / penalties.rho;
  const double weight_ridge =
      ridge * ((penalties.alpha + penalties.regularizer.entries.l2) / penalties.alpha);
  GramSystem primal = sums != nullptr ? sums->gram() : primal_system(inputs, v_);
  if (!penalties.regularizer.quadratic()) {
    primal.ridge = ridge;
    primal.ones_ridge = penalties.alpha_bias / penalties.rho;
    const at::Tensor gram = gram_matrix(primal);
    TORCH_CHECK_LINALG(all_finite(gram), where, ": the Gram matrix of the inputs is not finite");
    // Times the relaxation, which leaves the Hessian as it is.
    problem_ = WeightQuadratic(gram, penalties.regularizer, penalties.relaxation / penalties.rho,
                               v_.size(1) + (penalties.regularize_bias && bias_ ? 1 : 0), where);
  } else if (primal_) {
    primal.ridge = weight_ridge;
    primal.ones_ridge = bias_ridge;
    factor_ = factor(primal, where);
  } else {
    const double ones_row = bias_ ? bias_gain_ : 0;
    factor_ =
        factor({.a = v_.t(), .ridge = weight_ridge, .ones_row = ones_row, .ones = weights_.root}, where);
    if (cancels(factor_, v_.scalar_type())) {
      v_ = v_.to(at::kDouble);
      weights_.root = weights_.defined() ? weights_.root.to(at::kDouble) : weights_.root;
      factor_ =
          factor({.a = v_.t(), .ridge = weight_ridge, .ones_row = ones_row, .ones = weights_.root}, where);
    }
  }
}

// The residual times the weights' roots; as it is where sums have its product with them already.
at::Tensor WeightBlock::weighted(const at::Tensor& residual) const {
  return sums_ != nullptr ? residual : weights_.scaled(residual.to(v_.scalar_type()));
}

// The cross product with it, over all processes.
at::Tensor WeightBlock::total_cross_product(const at::Tensor& residual) const {
  if (sums_ != nullptr) {
    return sums_->cross();
  }
  const at::Tensor product = cross_product(residual, v_, bias_, weights_.root);
  if (sum_over_ranks_) {
    sum_over_ranks_(product);
  }
  return product;
}

// With a squared norm l2/2 |W|^2 the change D of the weights (and of b, likewise) is penalised by alpha/2
// |D|^2 + l2/2 |W + D|^2 = (alpha + l2)/2 |D + l2/(alpha + l2) W|^2 + const. The primal form takes the linear
// term to the right-hand side; the dual one first moves W to the minimiser of the penalty, and the residual
// with it.
void WeightBlock::solve(const at::Tensor& residual, const AffineMap& previous, const AffineMap& next) const {
  if (!penalties_.regularizer.quadratic()) {
    const at::Tensor centre = joined(previous);
    const at::Tensor solution = centre.clone();
    at::Tensor linear = total_cross_product(weighted(residual));
    if (penalties_.relaxation != 1) {
      linear.mul_(penalties_.relaxation);
    }
    problem_.minimise_(solution, centre, linear);
    split_out(solution, next);
    return;
  }
  const int64_t inputs = v_.size(1);
  const double l2 = penalties_.regularizer.entries.l2;
  const double moved = primal_ ? 0 : l2 / (penalties_.alpha + l2);
  const double bias_moved = primal_ || !bias_ ? 0 : bias_l2_ / (penalties_.alpha_bias + bias_l2_);
  at::Tensor working = weighted(residual);
  if (moved != 0) {
    working.addmm_(v_, previous.weight.t().to(v_.scalar_type()), 1, moved);
  }
  if (bias_moved != 0) {
    working.add_(weights_.defined() ? previous.bias * weights_.root : previous.bias, bias_moved);
  }
  if (!primal_) {
    factor_.solve_(working.t());
  }
  at::Tensor change = total_cross_product(working);
  at::Tensor weight_change = change.narrow(1, 0, inputs);
  if (primal_) {
    if (l2 != 0) {
      weight_change.sub_(previous.weight, l2 / penalties_.rho);
    }
    if (bias_ && bias_l2_ != 0) {
      change.select(1, inputs).sub_(previous.bias, bias_l2_ / penalties_.rho);
    }
    factor_.solve_(change);
  } else if (bias_) {
    change.select(1, inputs).mul_(bias_gain_);
  }
  at::Tensor weight = next.weight;
  at::add_out(weight, previous.weight, weight_change);
  if (moved != 0) {
    weight.sub_(previous.weight, moved);
  }
  if (bias_) {
    at::Tensor new_bias = next.bias;
    at::add_out(new_bias, previous.bias, change.select(1, inputs));
    if (bias_moved != 0) {
      new_bias.sub_(previous.bias, bias_moved);
    }
  }
}

void solve_weight_block(const WeightInputs& inputs, const WeightPenalties& penalties, const char* where,
                        const at::Tensor& residual, const AffineMap& previous, const AffineMap& next) {
  std::optional<WeightSums> sums;
  if (inputs.sum_over_ranks) {
    sums.emplace(inputs);
    sums->start_cross(residual);
  }
  WeightBlock(inputs, residual.size(1), penalties, /*always_primal=*/false, where, sums ? &*sums : nullptr)
      .solve(residual, previous, next);
}

}  // namespace torchbcd
