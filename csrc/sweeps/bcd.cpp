#include "sweeps/bcd.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "blocks/joint_states.h"
#include "blocks/nonlinear_least_squares.h"
#include "kernels/passes.h"
#include "sweeps/bcd_order.h"

namespace torchbcd {
namespace {

// Of the W block without a proximal term, relative to its Gram matrix's mean eigenvalue.
constexpr double kLeastDamping = 1e-10;

// Walks through the blocks in their order, which both algorithms share, and knows where every variable's
// latest value is: in the point that the sweep starts from, or in the next one. `product` is the tensor of a
// layer that a block leaves behind for the blocks after it, the residual U_l - V_{l-1} W_l^T - 1 b_l^T with
// three splittings and the product V_{l-1} W_l^T + 1 b_l^T with two; whoever moves something in it without
// setting it anew makes it stale.
class BcdBlocks : public Blocks<BcdSweep> {
 public:
  explicit BcdBlocks(const BcdSweep& sweep)
      : Blocks(sweep), product_(depth(), kBefore), v_moved_(depth()), u_moved_(depth()), w_moved_(depth()) {
    if (rows_.residuals == Residuals::kAllButFirst) {
      product_[0] = kStale;
    }
  }
  virtual ~BcdBlocks() = default;

  Residuals run() {
    const std::vector<BcdBlock> order = blocks_in_order(options_, depth());
    for (size_t k = 0; k < order.size(); ++k) {
      const auto [variable, l] = order[k];
      if (variable == 'W') {
        update_weights(l);
        continue;
      }
      if (options_.order() == "joint") {  // V_N to V_1 are one block, which comes first
        joint_block();
        for (; k < depth(); ++k) {
          v_moved_[order[k].layer] = true;
          done("V", order[k].layer);
        }
        --k;
        continue;
      }
      // V and U of a layer, one after the other, go through their rows together.
      const bool both = k + 1 < order.size() && order[k + 1] == BcdBlock{'U', l} && variable == 'V';
      update_states(l, variable == 'V', both || variable == 'U');
      k += both ? 1 : 0;
    }
    const bool fresh = std::count(product_.begin() + 1, product_.end(), kNext) + 1 ==
                       static_cast<std::ptrdiff_t>(product_.size());
    return fresh ? Residuals::kAllButFirst : Residuals::kStale;
  }

 protected:
  enum Where { kBefore, kNext, kStale };

  // The V block of a layer, its U block, or both.
  virtual void state_blocks(size_t l, bool v_block, bool u_block) = 0;
  // All V at once.
  virtual void joint_block() = 0;
  // W_l and b_l, what of them is trained, from the layer's inputs.
  virtual void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor& input) = 0;

  at::Tensor v(size_t l) const { return (v_moved_[l] ? rows_.next : rows_.current).v[l]; }
  at::Tensor u(size_t l) const { return (u_moved_[l] ? rows_.next : rows_.current).u[l]; }
  at::Tensor input(size_t l) const { return l == 0 ? rows_.x : v(l - 1); }
  bool unmoved(size_t l) const { return !u_moved_[l] && !w_moved_[l] && (l == 0 || !v_moved_[l - 1]); }
  const AffineMap& map(size_t l) const { return (w_moved_[l] ? sweep_.next_maps : sweep_.maps)[l]; }

  // V_N of rows [begin, begin + size), from the centre of its quadratics in `v`.
  void output_loss(const at::Tensor& v, int64_t begin, int64_t size) {
    const size_t l = depth() - 1;
    passes::loss_update(rows_.y.narrow(0, begin, size), v, rows_.row_weights(begin, size), problem_.loss,
                        options_.state_regularizer()[l], row_loss_weight(options_, rows_.population),
                        options_.gamma()[l] + options_.alpha()[l], v);
  }

  std::vector<Where> product_;

 private:
  void update_states(size_t l, bool v_block, bool u_block) {
    state_blocks(l, v_block, u_block);
    if (v_block) {
      v_moved_[l] = true;
      done("V", l);
    }
    if (u_block) {
      u_moved_[l] = true;
      done("U", l);
    }
  }

  void update_weights(size_t l) {
    if (!frozen(l)) {
      // A block that comes again starts from where it was, and writes there.
      const AffineMap from = w_moved_[l] ? clone_maps({sweep_.next_maps[l]})[0] : sweep_.maps[l];
      const at::Tensor inputs = input(l);
      weight_block(l, trained_layer(l, from, inputs), inputs);
      product_[l] = kStale;
    }
    w_moved_[l] = true;
    if (problem_.trained[l].any()) {
      done("W", l);
    }
  }

  std::vector<bool> v_moved_, u_moved_, w_moved_;
};

// Algorithm 1. u[l] holds the product P_l = V_{l-1} W_l^T + 1 b_l^T here. Where sigma is the identity, both
// blocks are least squares with their closed form; otherwise they are solved iteratively, from the point of
// the sweep before, and never end above it.
class TwoSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  bool linear(size_t l) const { return std::holds_alternative<functors::Identity>(activation(l)); }

  // P_l at the latest W_l, b_l and V_{l-1}.
  at::Tensor product(size_t l) {
    if (product_[l] == kStale) {
      affine_out(input(l), map(l), rows_.next.u[l]);
      product_[l] = kNext;
    }
    return (product_[l] == kNext ? rows_.next : rows_.current).u[l];
  }

  void state_blocks(size_t l, bool, bool) override {
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor previous = this->v(l).clone();
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
      l2.push_back(options_.state_regularizer()[l].l2);
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
    const Regularizer& regularizer = options_.state_regularizer()[l];
    const double curvature = options_.gamma()[l] + options_.alpha()[l];
    const double gamma = options_.gamma()[l + 1];
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor target = this->v(l + 1);
    at::Tensor product = rows_.next.u[l + 1];
    if (linear(l + 1)) {
      const at::Tensor& residual = rows_.next.residual[l + 1];
      HiddenStateBlock(map, curvature, gamma, regularizer, rows_.rows(), name.c_str())
          .solve_(v, previous, target, residual);
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
    const std::string name = where("W", l);
    const at::Tensor target = v(l);
    const at::Tensor predicted = product(l);
    const double gamma = options_.gamma()[l];
    const double alpha = proximal_weight(l, input);
    const Regularizer& regularizer = options_.weight_regularizer()[l].entries;  // there is nothing else
    const bool of_bias = options_.regularize_bias();
    if (linear(l)) {
      at::Tensor residual = rows_.next.residual[l];
      at::sub_out(residual, target, predicted);
      WeightBlock(layer.input, layer.outputs(), layer.bias(), {gamma, alpha, alpha, regularizer, of_bias},
                  /*always_primal=*/false, name.c_str())
          .solve(residual, layer.map, layer.next);
      return;
    }
    const at::Tensor ones = at::ones({layer.input.size(0), 1}, layer.input.options());
    const at::Tensor design = layer.bias() ? at::cat({layer.input, ones}, 1) : layer.input;
    const at::Tensor centre = joined(layer.map);
    const at::Tensor solution = centre.clone();
    const int64_t regularized = of_bias ? design.size(1) : layer.map.weight.size(1);
    NonlinearLeastSquares{design,     frozen_product(l, input), alpha, gamma, activation(l), regularizer,
                          regularized}
        .minimise_(solution, centre, target.t(), predicted.t().clone(), name.c_str());
    split_out(solution, layer.next);
  }
};

// Algorithm 2.
class ThreeSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  void state_blocks(size_t l, bool v_block, bool u_block) override {
    if (l + 1 == depth()) {
      output_blocks(l, v_block, u_block);
    } else {
      hidden_blocks(l, v_block, u_block);
    }
    if (u_block) {
      product_[l] = kNext;
    }
  }

  // Whether a layer's residual is still that of the point before: where it is stale, nobody has wanted it
  // yet.
  bool of_point_before(size_t l) const {
    return product_[l] == kBefore || (product_[l] == kStale && unmoved(l));
  }

  // U_l - V_{l-1} W_l^T - 1 b_l^T of rows [begin, begin + size), computed where it is stale.
  at::Tensor residual_rows(size_t l, int64_t begin, int64_t size) const {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor residual = cut((of_point_before(l) ? rows_.current : rows_.next).residual[l]);
    if (product_[l] == kStale) {
      affine_residual_out(cut(u(l)), cut(input(l)), map(l), residual);
    }
    return residual;
  }

  // The U block of rows [begin, begin + size), whose latest V are `v`.
  void auxiliary_rows(size_t l, const at::Tensor& v, double alpha, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    passes::auxiliary_update(v, cut(u(l)), residual_rows(l, begin, size), activation(l), options_.gamma()[l],
                             options_.rho_of(l), alpha, cut(rows_.next.u[l]), cut(rows_.next.residual[l]));
  }

  void joint_block() override {
    TORCH_INTERNAL_ASSERT(false, "the orders of Algorithm 2 have no joint block");
  }

  // V_N with its proximal term, then U_N without one.
  void output_blocks(size_t l, bool v_block, bool u_block) {
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor next = cut(rows_.next.v[l]);
      if (v_block) {
        passes::output_centre(cut(v(l)), cut(u(l)), activation(l), options_.gamma()[l], options_.alpha()[l],
                              next);
        output_loss(next, begin, size);
      }
      if (u_block) {
        auxiliary_rows(l, v_block ? next : cut(v(l)), /*alpha=*/0, begin, size);
      }
    });
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by chunk.
  void hidden_blocks(size_t l, bool v_block, bool u_block) {
    const std::string name = where("V", l);
    std::optional<HiddenStateBlock> block;
    if (v_block) {
      block.emplace(map(l + 1), options_.gamma()[l], options_.rho_of(l + 1), options_.state_regularizer()[l],
                    rows_.rows(), name.c_str());
    }
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor next = cut(rows_.next.v[l]);
      if (v_block) {
        const at::Tensor previous = block->iterative() ? cut(v(l)).clone() : at::Tensor();
        passes::activation(cut(u(l)), activation(l), next);
        block->solve_(next, previous, cut(u(l + 1)), cut(rows_.next.residual[l + 1]));
      }
      if (u_block) {
        auxiliary_rows(l, v_block ? next : cut(v(l)), options_.alpha()[l], begin, size);
      }
    });
    if (v_block) {
      product_[l + 1] = kNext;
    }
  }

  void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor&) override {
    const double alpha = options_.alpha_weight_of(l);
    const WeightPenalties penalties{options_.rho_of(l), alpha, alpha, options_.weight_regularizer()[l],
                                    options_.regularize_bias()};
    const auto make = [&](bool keep) {
      const std::string name = where("W", l);
      return std::make_unique<WeightBlock>(layer.input, layer.outputs(), layer.bias(), penalties, keep,
                                           name.c_str(), problem_.sum_over_ranks);
    };
    InputBlockCache& cache = rows_.cache;
    const bool keep = l == 0 && cache.enabled;
    if (keep && !(cache.block && cache.penalties == penalties && cache.trained == problem_.trained[l])) {
      cache.block = make(/*keep=*/true);
      cache.penalties = penalties;
      cache.trained = problem_.trained[l];
    }
    const std::unique_ptr<WeightBlock> passing = keep ? nullptr : make(/*keep=*/false);
    (keep ? *cache.block : *passing).solve(residual(l), layer.map, layer.next);
  }

  // The residual of all rows, in the next point, where the W block may overwrite it.
  at::Tensor residual(size_t l) {
    const at::Tensor& own = rows_.next.residual[l];
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) { residual_rows(l, begin, size); });
    if (of_point_before(l)) {
      own.copy_(rows_.current.residual[l]);
    }
    return own;
  }
};

}  // namespace

Residuals sweep_bcd(const BcdSweep& sweep) {
  const bool two = sweep.problem.options.splitting() == 2;
  if (two || sweep.rows.residuals == Residuals::kStale) {
    refresh_residuals(sweep.problem, sweep.maps, sweep.rows);
  }
  return two ? TwoSplitting(sweep).run() : ThreeSplitting(sweep).run();
}

}  // namespace torchbcd
