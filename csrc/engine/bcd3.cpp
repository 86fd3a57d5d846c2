// Zeng et al., Algorithm 2: block coordinate descent on the 3-splitting formulation.
#include <memory>
#include <string>

#include "engine/sweep.h"
#include "ops/passes.h"

namespace torchbcd {
namespace {

class ThreeSplittingSweep {
 public:
  explicit ThreeSplittingSweep(const SweepState& state) : state_(state), rows_(state.rows) {}

  Residuals run() {
    const Network& network = state_.network;
    const size_t last = network.depth() - 1;
    if (rows_.residuals == Residuals::kStale) {
      refresh_residuals(network, state_.maps, rows_);
    }
    if (network.order == UpdateOrder::kPaper) {
      for (size_t l = last + 1; l-- > 0;) {
        for (int64_t pass = 0; pass < network.inner_sweeps; ++pass) {
          state_blocks(l, state_.next_maps, pass);
        }
        weight_block(l, rows_.input(l));
      }
      return Residuals::kAllButFirst;
    }
    for (int64_t pass = 0; pass < network.inner_sweeps; ++pass) {
      for (size_t l = last + 1; l-- > 0;) {
        state_blocks(l, state_.maps, pass);
      }
    }
    for (size_t l = last + 1; l-- > 0;) {
      weight_block(l, l == 0 ? rows_.x : rows_.next.v[l - 1]);
    }
    return Residuals::kStale;
  }

 private:
  // The V and U blocks of a layer. The first pass starts from the last sweep, a further one from the pass
  // before. `maps` are the weights of the layer after, at the time of the update.
  void state_blocks(size_t l, const std::vector<AffineMap>& maps, int64_t pass) {
    if (l + 1 == state_.network.depth()) {
      output_block(l, pass);
    } else {
      hidden_block(l, maps[l + 1], pass);
    }
    state_.done("V", l);
    state_.done("U", l);
  }

  const SplitVariables& source(int64_t pass) const { return pass == 0 ? rows_.current : rows_.next; }

  // The U block of rows [begin, begin + size), once their V is in rows.next.
  void auxiliary_rows(size_t l, double alpha, int64_t pass, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const LayerOptions& options = state_.options(l);
    const at::Tensor u = cut(source(pass).u[l]);
    const at::Tensor residual = cut(source(pass).residual[l]);
    if (l == 0 && pass == 0 && rows_.residuals == Residuals::kAllButFirst) {
      affine_residual_out(u, cut(rows_.x), state_.maps[0], residual);
    }
    passes::auxiliary_update(cut(rows_.next.v[l]), u, residual, state_.activation(l), options.gamma,
                             options.rho, alpha, cut(rows_.next.u[l]), cut(rows_.next.residual[l]));
  }

  // V_N with its proximal term, then U_N without one.
  void output_block(size_t l, int64_t pass) {
    const LayerOptions& options = state_.options(l);
    const double weight = row_loss_weight(state_.network, rows_);
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      passes::output_centre(cut(source(pass).v[l]), cut(source(pass).u[l]), state_.activation(l),
                            options.gamma, options.alpha, v);
      passes::loss_update(cut(rows_.y), v, rows_.row_weights(begin, size), state_.network.loss,
                          options.state_regularizer, weight, options.gamma + options.alpha, v);
      auxiliary_rows(l, /*alpha=*/0, pass, begin, size);
    });
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by chunk.
  void hidden_block(size_t l, const AffineMap& map, int64_t pass) {
    const LayerOptions& options = state_.options(l);
    const std::string where = state_.where("V", l);
    const StateBlock block(map, options.gamma, state_.options(l + 1).rho, options.state_regularizer,
                           rows_.rows(), where.c_str());
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      const at::Tensor previous = block.iterative() ? cut(source(pass).v[l]).clone() : at::Tensor();
      passes::activation(cut(source(pass).u[l]), state_.activation(l), v);
      block.solve_(v, previous, cut(rows_.next.u[l + 1]), cut(rows_.next.residual[l + 1]));
      auxiliary_rows(l, options.alpha, pass, begin, size);
    });
  }

  void weight_block(size_t l, const at::Tensor& input) {
    const AffineMap& map = state_.maps[l];
    const LayerOptions& options = state_.options(l);
    const auto make = [&](bool keep) {
      const std::string where = state_.where("W", l);
      return std::make_unique<WeightBlock>(
          input, map.weight.size(0), map.bias.defined(),
          WeightPenalties{options.rho, options.alpha_weight, options.weight_regularizer}, keep, where.c_str(),
          state_.network.sum_over_ranks);
    };
    InputBlockCache& cache = state_.cache;
    if (l == 0 && cache.enabled) {
      const bool fits = cache.block && cache.options.rho == options.rho &&
                        cache.options.alpha_weight == options.alpha_weight &&
                        cache.options.weight_regularizer == options.weight_regularizer;
      if (!fits) {
        cache.block = make(/*keep=*/true);
        cache.options = options;
      }
      cache.block->solve(rows_.next.residual[0], map, state_.next_maps[0]);
    } else {
      make(/*keep=*/false)->solve(rows_.next.residual[l], map, state_.next_maps[l]);
    }
    state_.done("W", l);
  }

  const SweepState& state_;
  RowSet& rows_;
};

}  // namespace

Residuals sweep_three_splitting(const SweepState& state) { return ThreeSplittingSweep(state).run(); }

}  // namespace torchbcd
