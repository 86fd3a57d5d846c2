#include "engine/bcd3.h"

#include <memory>
#include <string>

#include "ops/passes.h"

namespace torchbcd {
namespace {

class Sweep {
 public:
  Sweep(const Network& network, const std::vector<AffineMap>& maps, const std::vector<AffineMap>& next_maps,
        RowSet& rows, InputBlockCache& cache, const BlockObserver& observer)
      : network_(network),
        maps_(maps),
        next_maps_(next_maps),
        rows_(rows),
        cache_(cache),
        observer_(observer) {}

  void run() {
    const size_t last = network_.depth() - 1;
    if (rows_.residuals == Residuals::kStale) {
      refresh_residuals(maps_, rows_);
    }
    output_block(last);
    weight_block(last);
    for (size_t l = last; l-- > 0;) {
      hidden_block(l);
      weight_block(l);
    }
  }

 private:
  const LayerOptions& options(size_t l) const { return network_.layers[l].options; }

  void done(const char* block, size_t l) const {
    if (observer_) {
      observer_(block, l);
    }
  }

  // The U block of rows [begin, begin + size), once their V is in rows.next.
  void auxiliary_rows(size_t l, double alpha, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor residual = cut(rows_.current.residual[l]);
    if (l == 0 && rows_.residuals == Residuals::kAllButFirst) {
      affine_residual_out(cut(rows_.current.u[0]), cut(rows_.x), maps_[0], residual);
    }
    passes::auxiliary_update(cut(rows_.next.v[l]), cut(rows_.current.u[l]), residual,
                             network_.layers[l].activation, options(l).gamma, options(l).rho, alpha,
                             cut(rows_.next.u[l]), cut(rows_.next.residual[l]));
  }

  // V_N with its proximal term, then U_N without one.
  void output_block(size_t l) {
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      passes::output_update(cut(rows_.y), cut(rows_.current.v[l]), cut(rows_.current.u[l]), network_.loss,
                            network_.layers[l].activation, row_loss_weight(network_, rows_), options(l).gamma,
                            options(l).alpha, cut(rows_.next.v[l]));
      auxiliary_rows(l, /*alpha=*/0, begin, size);
    });
    done("V", l);
    done("U", l);
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by
  // chunk.
  void hidden_block(size_t l) {
    const std::string where = block_name(network_, "V", l);
    const StateBlock block(next_maps_[l + 1], options(l).gamma, options(l + 1).rho, rows_.rows(),
                           where.c_str());
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      passes::activation(cut(rows_.current.u[l]), network_.layers[l].activation, cut(rows_.next.v[l]));
      block.solve_(cut(rows_.next.v[l]), cut(rows_.next.u[l + 1]), cut(rows_.next.residual[l + 1]));
      auxiliary_rows(l, options(l).alpha, begin, size);
    });
    done("V", l);
    done("U", l);
  }

  void weight_block(size_t l) {
    const auto make = [&](bool keep) {
      const std::string where = block_name(network_, "W", l);
      return std::make_unique<WeightBlock>(rows_.input(l), maps_[l].weight.size(0), maps_[l].bias.defined(),
                                           options(l).rho, options(l).alpha_weight, keep, where.c_str());
    };
    if (l == 0 && cache_.enabled) {
      const double ratio = options(0).alpha_weight / options(0).rho;
      if (!cache_.block || cache_.ratio != ratio) {
        cache_.block = make(/*keep=*/true);
        cache_.ratio = ratio;
      }
      cache_.block->solve(rows_.next.residual[0], maps_[0], next_maps_[0]);
    } else {
      make(/*keep=*/false)->solve(rows_.next.residual[l], maps_[l], next_maps_[l]);
    }
    done("W", l);
  }

  const Network& network_;
  const std::vector<AffineMap>& maps_;
  const std::vector<AffineMap>& next_maps_;
  RowSet& rows_;
  InputBlockCache& cache_;
  const BlockObserver& observer_;
};

}  // namespace

void sweep_three_splitting(const Network& network, const std::vector<AffineMap>& maps,
                           const std::vector<AffineMap>& next_maps, RowSet& rows, InputBlockCache& cache,
                           const BlockObserver& observer) {
  Sweep(network, maps, next_maps, rows, cache, observer).run();
}

}  // namespace torchbcd
