// Zeng et al., Algorithm 1.
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>

#include <utility>

#include "blocks/joint_states.h"
#include "blocks/nonlinear_least_squares.h"
#include "sweeps/bcd_blocks.h"

namespace torchbcd {
namespace {

// Of the W block without a proximal term, relative to its Gram matrix's mean eigenvalue.
constexpr double kLeastDamping = 1e-10;

// u[l] holds the product P_l = V_{l-1} W_l^T + 1 b_l^T here. Where sigma is the identity, both
// blocks are least squares with their closed form; otherwise they are solved iteratively, from the point of
// the sweep before, and never end above it.
class TwoSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  bool linear(size_t l) const { return functors::is_identity(activation(l)); }

  // P_l at the latest W_l, b_l and V_{l-1}.
  at::Tensor product(size_t l) {
    if (product_[l] == kStale) {
      affine_out(input(l), map(l), rows_.next.u[l]);
      product_[l] = kNext;
    }
    return (product_[l] == kNext ? rows_.next : rows_.current).u[l];
  }

  at::Tensor argument(size_t l) override { return product(l); }

  void state_blocks(size_t l, bool, bool) override {
    const at::Tensor& v = rows_.next.v[l];
    // Iterations move what they start from. A copy of many rows is one that the kernel maps anew each time.
    const bool iterative = l + 1 < depth() && !(linear(l + 1) && options_.state_regularizer()[l].quadratic());
    const at::Tensor previous = iterative ? this->v(l).clone() : this->v(l);
    // V moves: what gamma/2 |V - sigma(P)|^2 and the proximal term have in common is its centre.
    passes::output_centre(previous, product(l), activation(l), options_.gamma()[l], options_.alpha()[l], v);
    if (l + 1 == depth()) {
      output_loss(v, 0, rows_.rows());
    } else {
      hidden_state(l, map(l + 1), previous);
      product_[l + 1] = kNext;
    }
  }

  void joint_block() override {
    std::vector<double> gamma, l2;
    for (size_t l = 0; l < depth(); ++l) {
      rows_.next.v[l].copy_(v(l));
      gamma.push_back(options_.gamma()[l]);
      l2.push_back(options_.state_regularizer()[l].entries.l2);
      product_[l] = l == 0 ? product_[l] : kStale;
    }
    const at::Tensor weight = rows_.row_weight.mul(row_loss_weight(options_, rows_.population));
    JointStates{problem_.activations, sweep_.maps, gamma, l2}.minimise_(rows_.next.v, product(0), rows_.y,
                                                                        weight.expand({rows_.rows(), 1}));
  }

  // What binds W_l and b_l to where they are: nothing but what makes their system definite, where V is one
  // block, as in the method of auxiliary coordinates.
  double proximal_weight(size_t l, const at::Tensor& input) const {
    if (options_.order() != "joint") {
      return options_.alpha_weight_of(l);
    }
    const auto rows = static_cast<double>(input.size(0));
    const double mean_square = (norm_squared(input) + rows) / static_cast<double>(input.size(1) + 1);
    return kLeastDamping * options_.gamma()[l] * mean_square;
  }

  void hidden_state(size_t l, const AffineMap& map, const at::Tensor& previous) {
    const std::string name = where("V", l);
    const Regularizer& regularizer = options_.state_regularizer()[l].entries;
    const double curvature = options_.gamma()[l] + options_.alpha()[l];
    const double gamma = options_.gamma()[l + 1];
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor target = this->v(l + 1);
    at::Tensor product = rows_.next.u[l + 1];
    if (linear(l + 1)) {
      const at::Tensor& residual = rows_.next.residual[l + 1];
      const HiddenStateBlock block(map, curvature, gamma, regularizer, rows_.rows(), name.c_str());
      for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
        const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
        block.solve_(cut(v), cut(previous), cut(target), cut(residual));
      });
      at::sub_out(product, target, residual);
      return;
    }
    const at::Tensor solution = previous;
    affine_out(solution, map, product);
    const at::Tensor offset = map.bias.defined() ? map.bias.unsqueeze(0) : map.bias;
    NonlinearLeastSquares{map.weight,        offset,      curvature,         gamma,
                          activation(l + 1), regularizer, map.weight.size(1)}
        .minimise_(solution, v, target, product, name.c_str());
    v.copy_(solution);
  }

  // What a frozen weight or bias adds to the layer's products, (d_l, n) or (d_l, 1); undefined: nothing.
  at::Tensor frozen_product(size_t l, const at::Tensor& input) const {
    const AffineMap& map = sweep_.maps[l];
    const Trained trained = problem_.trained[l];
    if (!trained.weight) {
      return at::mm(map.weight, input.t());
    }
    return map.bias.defined() && !trained.bias ? map.bias.unsqueeze(1) : at::Tensor();
  }

  void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor& input) override {
    const at::Tensor target = v(l);
    const at::Tensor predicted = product(l);
    const double gamma = options_.gamma()[l];
    const double alpha = proximal_weight(l, input);
    const WeightRegularizer& regularizer = options_.weight_regularizer()[l];
    const bool of_bias = options_.regularize_bias();
    if (linear(l)) {
      at::Tensor residual = rows_.next.residual[l];
      at::sub_out(residual, target, predicted);
      // The unknowns may be more than the rows, and the penalty next to nothing.
      solve_weights(l, layer, {gamma, alpha, alpha, regularizer, of_bias}, residual, /*primal=*/false);
      return;
    }
    const std::string name = where("W", l);
    const at::Tensor ones = at::ones({layer.input.size(0), 1}, layer.input.options());
    const at::Tensor design = layer.bias() ? at::cat({layer.input, ones}, 1) : layer.input;
    const at::Tensor centre = joined(layer.map);
    const at::Tensor solution = centre.clone();
    const int64_t regularized = of_bias ? design.size(1) : layer.map.weight.size(1);
    NonlinearLeastSquares{design,        frozen_product(l, input), alpha,      gamma,
                          activation(l), regularizer.entries,      regularized}
        .minimise_(solution, centre, target.t(), predicted.t().clone(), name.c_str());
    split_out(solution, layer.next);
  }
};

}  // namespace

Residuals sweep_two_splittings(const BcdSweep& sweep) { return TwoSplitting(sweep).run(); }

}  // namespace torchbcd
