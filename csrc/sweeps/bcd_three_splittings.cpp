// Zeng et al., Algorithm 2, also with skip connections: with T what skips add to layer l's products, the
// objective has rho/2 |U_l - V_{l-1} W_l^T - 1 b_l^T - T|^2, which is one more quadratic in the variable T.
#include <ATen/TensorOperators.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include <functional>
#include <optional>

#include "blocks/proximal_output.h"
#include "sweeps/bcd_blocks.h"

namespace torchbcd {
namespace {

class ThreeSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  at::Tensor argument(size_t l) override { return u(l); }

  void state_blocks(size_t l, bool v_block, bool u_block) override {
    if (l + 1 == depth()) {
      output_blocks(l, v_block, u_block);
    } else {
      hidden_blocks(l, v_block, u_block);
    }
    if (v_block) {
      are_next(skips_from(problem_.skips, l, /*activated=*/true));
    }
    if (u_block) {
      product_[l] = kNext;
      are_next(skips_from(problem_.skips, l, /*activated=*/false));
    }
  }

  // Whether a layer's residual is still that of the point before: where it is stale, nobody has wanted it
  // yet.
  bool of_point_before(size_t l) const {
    return product_[l] == kBefore || (product_[l] == kStale && unmoved(l));
  }

  // U_l - V_{l-1} W_l^T - 1 b_l^T, less what skips add, of rows [begin, begin + size), computed where it is
  // stale.
  at::Tensor residual_rows(size_t l, int64_t begin, int64_t size) const {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor residual = cut((of_point_before(l) ? rows_.current : rows_.next).residual[l]);
    if (product_[l] == kStale) {
      affine_residual_out(cut(u(l)), cut(input(l)), map(l), residual);
      for (const Skip& skip : skips_into(problem_.skips, l)) {
        residual.sub_(cut(skipped(skip)));
      }
    }
    return residual;
  }

  // The quadratics rho/2 |t - (t' + R)|^2 by which skips bind a variable t, now t', to residuals R: their
  // weight in all, and the sum of rho R.
  struct Bound {
    std::vector<Skip> skips;
    std::vector<at::Tensor> residuals;
    double weight = 0;
    at::Tensor pull;
  };
  Bound bound_by(const std::vector<Skip>& skips, int64_t begin, int64_t size) const {
    Bound bound{skips, {}, 0, {}};
    for (const Skip& skip : skips) {
      const double rho = options_.rho_of(skip.to);
      bound.residuals.push_back(residual_rows(skip.to, begin, size));
      bound.weight += rho;
      const at::Tensor pull = bound.residuals.back().mul(rho);
      bound.pull = bound.pull.defined() ? bound.pull.add_(pull) : pull;
    }
    return bound;
  }
  // Those residuals, after the variable has moved.
  void moved_by(const Bound& bound, const at::Tensor& change, int64_t begin, int64_t size) {
    for (size_t k = 0; k < bound.skips.size(); ++k) {
      at::Tensor next = rows_.next.residual[bound.skips[k].to].narrow(0, begin, size);
      at::sub_out(next, bound.residuals[k], change);
    }
  }
  void are_next(const std::vector<Skip>& skips) {
    for (const Skip& skip : skips) {
      product_[skip.to] = kNext;
    }
  }

  // The U block of rows [begin, begin + size), whose latest V are `v`.
  void auxiliary_rows(size_t l, const at::Tensor& v, double alpha, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor u = cut(this->u(l));
    const at::Tensor residual = residual_rows(l, begin, size);
    const at::Tensor next = cut(rows_.next.u[l]);
    const at::Tensor next_residual = cut(rows_.next.residual[l]);
    const auto update = [&](const at::Tensor& of, double rho) {
      passes::auxiliary_update(v, u, of, activation(l), options_.gamma()[l], rho, alpha, next, next_residual);
    };
    const double rho = options_.rho_of(l);
    const std::vector<Skip> skips = skips_from(problem_.skips, l, /*activated=*/false);
    if (skips.empty()) {
      update(residual, rho);
      return;
    }
    // Two quadratics of U are one, with the mean of their centres U - R and U + R'.
    const Bound bound = bound_by(skips, begin, size);
    const at::Tensor before = u.clone();  // a block that comes again writes where it reads
    const at::Tensor own = residual.clone();
    update(at::mul(own, rho).sub_(bound.pull).div_(rho + bound.weight), rho + bound.weight);
    const at::Tensor change = next - before;
    next_residual.copy_(own).add_(change);
    moved_by(bound, change, begin, size);
  }

  void joint_block() override {
    TORCH_INTERNAL_ASSERT(false, "the orders of Algorithm 2 have no joint block");
  }

  // Whether a layer's s_i is one's own, a function of all its rows together.
  bool has_own_term(size_t l) const { return options_.state_regularizer()[l].proximal != nullptr; }
  // The blocks of a layer's states, chunk by chunk, or where one wants them all together.
  void over_rows(bool together, const std::function<void(int64_t begin, int64_t size)>& f) const {
    if (together) {
      f(0, rows_.rows());
    } else {
      for_each_chunk(rows_.rows(), f);
    }
  }

  // V_N with its proximal term, then U_N without one.
  void output_blocks(size_t l, bool v_block, bool u_block) {
    over_rows(v_block && has_own_term(l), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor next = cut(rows_.next.v[l]);
      if (v_block) {
        const at::Tensor previous = has_own_term(l) ? v(l).clone() : cut(v(l));
        passes::output_centre(previous, cut(u(l)), activation(l), options_.gamma()[l], options_.alpha()[l],
                              next);
        if (has_own_term(l)) {
          proximal_output_(rows_.y, next, rows_.row_weight, problem_.loss, options_.state_regularizer()[l],
                           row_loss_weight(options_, rows_.population),
                           options_.gamma()[l] + options_.alpha()[l], where("V", l), previous);
          next.copy_(previous);
        } else {
          output_loss(next, begin, size);
        }
      }
      if (u_block) {
        auxiliary_rows(l, v_block ? next : cut(v(l)), /*alpha=*/0, begin, size);
      }
    });
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by chunk.
  void hidden_blocks(size_t l, bool v_block, bool u_block) {
    const std::string name = where("V", l);
    const std::vector<Skip> skips = skips_from(problem_.skips, l, /*activated=*/true);
    double gamma = options_.gamma()[l];  // of all that V is bound by, but the layer behind it
    for (const Skip& skip : skips) {
      gamma += options_.rho_of(skip.to);
    }
    std::optional<HiddenStateBlock> block;
    if (v_block) {
      block.emplace(map(l + 1), gamma, options_.rho_of(l + 1), options_.state_regularizer()[l], rows_.rows(),
                    name.c_str());
    }
    over_rows(v_block && has_own_term(l), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor next = cut(rows_.next.v[l]);
      if (v_block) {
        const at::Tensor previous = block->iterative() || !skips.empty() ? cut(v(l)).clone() : at::Tensor();
        const Bound bound = bound_by(skips, begin, size);
        passes::activation(cut(u(l)), activation(l), next);
        if (!skips.empty()) {  // the centre of gamma/2 |V - sigma(U)|^2 and what skips add
          next.mul_(options_.gamma()[l] / gamma)
              .add_(previous, bound.weight / gamma)
              .add_(bound.pull, 1 / gamma);
        }
        block->solve_(next, previous, target_rows(l + 1, begin, size), cut(rows_.next.residual[l + 1]));
        if (!skips.empty()) {
          moved_by(bound, next - previous, begin, size);
        }
      }
      if (u_block) {
        auxiliary_rows(l, v_block ? next : cut(v(l)), options_.alpha()[l], begin, size);
      }
    });
    if (v_block) {
      product_[l + 1] = kNext;
    }
  }

  // What V_{l-1} W_l^T + 1 b_l^T is compared with: U_l, less what skips add.
  at::Tensor target_rows(size_t l, int64_t begin, int64_t size) const {
    at::Tensor target = u(l).narrow(0, begin, size);
    for (const Skip& skip : skips_into(problem_.skips, l)) {
      target = target - skipped(skip).narrow(0, begin, size);
    }
    return target;
  }

  void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor&) override {
    const double alpha = options_.alpha_weight_of(l);
    const WeightPenalties penalties{options_.rho_of(l), alpha, alpha, options_.weight_regularizer()[l],
                                    options_.regularize_bias()};
    solve_weights(l, layer, penalties, residual(l), /*primal=*/true);
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

Residuals sweep_three_splittings(const BcdSweep& sweep) { return ThreeSplitting(sweep).run(); }

}  // namespace torchbcd
