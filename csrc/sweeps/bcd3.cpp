// Zeng et al., Algorithm 2: block coordinate descent on the 3-splitting formulation.
#include <memory>
#include <string>

#include "kernels/passes.h"
#include "sweeps/bcd.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

class ThreeSplittingSweep {
 public:
  explicit ThreeSplittingSweep(const BcdSweep& sweep)
      : sweep_(sweep), options_(sweep.problem.options), rows_(sweep.rows) {}

  Residuals run() {
    const size_t last = sweep_.problem.depth() - 1;
    if (rows_.residuals == Residuals::kStale) {
      refresh_residuals(sweep_.problem, sweep_.maps, rows_);
    }
    if (options_.order() == "paper") {
      for (size_t l = last + 1; l-- > 0;) {
        for (int64_t pass = 0; pass < options_.inner_sweeps(); ++pass) {
          state_blocks(l, sweep_.next_maps, pass);
        }
        weight_block(l, rows_.input(l));
      }
      return Residuals::kAllButFirst;
    }
    for (int64_t pass = 0; pass < options_.inner_sweeps(); ++pass) {
      for (size_t l = last + 1; l-- > 0;) {
        state_blocks(l, sweep_.maps, pass);
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
    if (l + 1 == sweep_.problem.depth()) {
      output_block(l, pass);
    } else {
      hidden_block(l, maps[l + 1], pass);
    }
    done("V", l);
    done("U", l);
  }

  const BcdVariables& source(int64_t pass) const { return pass == 0 ? rows_.current : rows_.next; }

  // The U block of rows [begin, begin + size), once their V is in rows.next.
  void auxiliary_rows(size_t l, double alpha, int64_t pass, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor u = cut(source(pass).u[l]);
    const at::Tensor residual = cut(source(pass).residual[l]);
    if (l == 0 && pass == 0 && rows_.residuals == Residuals::kAllButFirst) {
      affine_residual_out(u, cut(rows_.x), sweep_.maps[0], residual);
    }
    passes::auxiliary_update(cut(rows_.next.v[l]), u, residual, activation(l), options_.gamma()[l],
                             options_.rho_of(l), alpha, cut(rows_.next.u[l]), cut(rows_.next.residual[l]));
  }

  // V_N with its proximal term, then U_N without one.
  void output_block(size_t l, int64_t pass) {
    const double weight = row_loss_weight(options_, rows_.population);
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      passes::output_centre(cut(source(pass).v[l]), cut(source(pass).u[l]), activation(l),
                            options_.gamma()[l], options_.alpha()[l], v);
      passes::loss_update(cut(rows_.y), v, rows_.row_weights(begin, size), sweep_.problem.loss,
                          options_.state_regularizer()[l], weight, options_.gamma()[l] + options_.alpha()[l],
                          v);
      auxiliary_rows(l, /*alpha=*/0, pass, begin, size);
    });
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by chunk.
  void hidden_block(size_t l, const AffineMap& map, int64_t pass) {
    const std::string name = where("V", l);
    const HiddenStateBlock block(map, options_.gamma()[l], options_.rho_of(l + 1),
                                 options_.state_regularizer()[l], rows_.rows(), name.c_str());
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      const at::Tensor previous = block.iterative() ? cut(source(pass).v[l]).clone() : at::Tensor();
      passes::activation(cut(source(pass).u[l]), activation(l), v);
      block.solve_(v, previous, cut(rows_.next.u[l + 1]), cut(rows_.next.residual[l + 1]));
      auxiliary_rows(l, options_.alpha()[l], pass, begin, size);
    });
  }

  void weight_block(size_t l, const at::Tensor& input) {
    const AffineMap& map = sweep_.maps[l];
    const Trained trained = sweep_.problem.trained[l];
    if (!trained.any()) {
      copy_map(map, sweep_.next_maps[l]);
      return;
    }
    const double alpha = options_.alpha_weight_of(l);
    const WeightPenalties penalties{options_.rho_of(l), alpha, alpha, options_.weight_regularizer()[l]};
    const auto make = [&](bool keep) {
      const std::string name = where("W", l);
      return std::make_unique<WeightBlock>(input, map.weight.size(0), trained, penalties, keep,
                                           name.c_str(), sweep_.problem.sum_over_ranks);
    };
    InputBlockCache& cache = rows_.cache;
    const bool keep = l == 0 && cache.enabled;
    if (keep && !(cache.block && cache.penalties == penalties && cache.trained == trained)) {
      cache.block = make(/*keep=*/true);
      cache.penalties = penalties;
      cache.trained = trained;
    }
    const std::unique_ptr<WeightBlock> passing = keep ? nullptr : make(/*keep=*/false);
    (keep ? *cache.block : *passing).solve(rows_.next.residual[l], map, sweep_.next_maps[l]);
    done("W", l);
  }

  std::string where(const char* block, size_t l) const {
    return block_name(sweep_.problem.name, sweep_.problem.depth(), block, l);
  }
  void done(const char* block, size_t l) const { observe(sweep_.observer, block, l); }
  const functors::AnyActivation& activation(size_t l) const { return sweep_.problem.activations[l]; }

  const BcdSweep& sweep_;
  const BCDOptions& options_;
  BcdRows& rows_;
};

}  // namespace

Residuals sweep_three_splitting(const BcdSweep& sweep) { return ThreeSplittingSweep(sweep).run(); }

}  // namespace torchbcd
