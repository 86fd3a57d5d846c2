// What the sweeps of Algorithms 1 and 2 share: the blocks in their order.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/passes.h"
#include "sweeps/bcd.h"
#include "sweeps/bcd_order.h"
#include "sweeps/sloped_blocks.h"

namespace torchbcd {

// Walks through the blocks in their order, which both algorithms share, and knows where every variable's
// latest value is: in the point that the sweep starts from, or in the next one. `product` is the tensor of a
// layer that a block leaves behind for the blocks after it, the residual U_l - V_{l-1} W_l^T - 1 b_l^T with
// three splittings and the product V_{l-1} W_l^T + 1 b_l^T with two; whoever moves something in it without
// setting it anew makes it stale.
class BcdBlocks : public SlopedBlocks<BcdSweep> {
 public:
  explicit BcdBlocks(const BcdSweep& sweep)
      : SlopedBlocks(sweep),
        product_(depth(), kBefore),
        v_moved_(depth()),
        u_moved_(depth()),
        w_moved_(depth()) {
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
      // V and U of a layer, one after the other, go through their rows together, where no skip reads them.
      const bool both = k + 1 < order.size() && order[k + 1] == BcdBlock{'U', l} && variable == 'V' &&
                        skips_from(problem_.skips, l, true).empty() &&
                        skips_from(problem_.skips, l, false).empty();
      update_states(l, variable == 'V', both || variable == 'U');
      k += both ? 1 : 0;
    }
    const bool fresh = std::count(product_.begin() + 1, product_.end(), kNext) + 1 ==
                       static_cast<std::ptrdiff_t>(product_.size());
    return fresh ? Residuals::kAllButFirst : Residuals::kStale;
  }

 protected:
  enum Where { kBefore, kNext, kStale };

  // What a layer's activation is applied to, at its latest value.
  virtual at::Tensor argument(size_t l) = 0;
  // The V block of a layer, its U block, or both.
  virtual void state_blocks(size_t l, bool v_block, bool u_block) = 0;
  // All V at once.
  virtual void joint_block() = 0;
  // W_l and b_l, what of them is trained, from the layer's inputs.
  virtual void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor& input) = 0;

  at::Tensor v(size_t l) const { return (v_moved_[l] ? rows_.next : rows_.current).v[l]; }
  at::Tensor u(size_t l) const { return (u_moved_[l] ? rows_.next : rows_.current).u[l]; }
  at::Tensor input(size_t l) const { return l == 0 ? rows_.x : v(l - 1); }
  bool unmoved(size_t l) const {
    bool moved = u_moved_[l] || w_moved_[l] || (l > 0 && v_moved_[l - 1]);
    for (const Skip& skip : skips_into(problem_.skips, l)) {
      moved = moved || (skip.from >= 0 && (skip.activated ? v_moved_ : u_moved_)[skip.from]);
    }
    return !moved;
  }
  // What a skip adds, at its latest value.
  at::Tensor skipped(const Skip& skip) const {
    return skip.from < 0 ? rows_.x : skip.activated ? v(skip.from) : u(skip.from);
  }
  const AffineMap& map(size_t l) const { return (w_moved_[l] ? sweep_.next_maps : sweep_.maps)[l]; }

  // V_N of rows [begin, begin + size), from the centre of its quadratics in `v`.
  void output_loss(const at::Tensor& v, int64_t begin, int64_t size) {
    const size_t l = depth() - 1;
    passes::loss_update(rows_.y.narrow(0, begin, size), v, rows_.row_weights(begin, size), problem_.loss,
                        options_.state_regularizer()[l].entries, row_loss_weight(options_, rows_.population),
                        options_.gamma()[l] + options_.alpha()[l], v);
  }

  // W_l and b_l by least squares for what is left of their targets. Over bound data the first layer's block,
  // whose inputs never change, is factored once, and where `primal` on the side of the unknowns.
  void solve_weights(size_t l, const TrainedLayer& layer, const WeightPenalties& penalties,
                     const at::Tensor& residual, bool primal) {
    const std::string name = where("W", l);
    const WeightInputs inputs{layer.input, layer.bias(), problem_.sum_over_ranks};
    InputBlockCache& cache = rows_.cache;
    if (l > 0 || !cache.enabled) {
      solve_weight_block(inputs, penalties, name.c_str(), residual, layer.map, layer.next);
      return;
    }
    const bool kept = cache.block && cache.penalties == penalties && cache.trained == problem_.trained[l] &&
                      cache.primal == primal;
    if (!kept) {
      cache.block = std::make_unique<WeightBlock>(inputs, layer.outputs(), penalties, primal, name.c_str());
      cache.penalties = penalties;
      cache.trained = problem_.trained[l];
      cache.primal = primal;
    }
    cache.block->solve(residual, layer.map, layer.next);
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

  // W and b of a layer, and before them the slope that its activation has, if it is trained.
  void update_weights(size_t l) {
    if (trains_slope(l)) {
      slope_block(l, v(l), argument(l), options_.gamma()[l], options_.alpha_weight_of(l));
    }
    if (!frozen(l)) {
      // A block that comes again starts from where it was, and writes there.
      const AffineMap from = w_moved_[l] ? clone_maps({sweep_.next_maps[l]})[0] : sweep_.maps[l];
      const at::Tensor inputs = input(l);
      weight_block(l, trained_layer(l, from, inputs), inputs);
      product_[l] = kStale;
    }
    w_moved_[l] = true;
    if (problem_.trained[l].affine()) {
      done("W", l);
    }
  }

  std::vector<bool> v_moved_, u_moved_, w_moved_;
};

Residuals sweep_two_splittings(const BcdSweep& sweep);
Residuals sweep_three_splittings(const BcdSweep& sweep);

}  // namespace torchbcd
