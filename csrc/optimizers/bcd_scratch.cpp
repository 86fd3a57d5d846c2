// BCD with its bound data in a folder: what a folder does not take, and the record of a sweep.
#include <c10/util/Exception.h>

#include "optimizers/bcd_data.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"

namespace torchbcd {

SavedState BCD::Data::record(const std::vector<AffineMap>& maps, const BcdRows& rows, Residuals residuals,
                             int64_t sweeps) const {
  SavedState state;
  state.numbers["splitting"] = {static_cast<double>(options.splitting())};
  state.numbers["sweeps"] = {static_cast<double>(sweeps)};
  state.numbers["residuals"] = {static_cast<double>(residuals)};
  state.numbers["rows"] = {static_cast<double>(rows.rows())};
  state.numbers["row_weights"] = {static_cast<double>(rows.row_weight.size(0))};
  save_maps(state, maps);
  return state;
}

void BCD::check_takes_folder() const {
  SplitOptimizer::check_takes_folder();
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    const auto& term = data_->options.state_regularizer()[l].proximal;
    TORCH_CHECK_VALUE(!term, mlp_->name,
                      ": a state_regularizer of one's own needs data in memory: it is a function of all rows "
                      "together (got '",
                      term->name, "' in layer ", l + 1, ")");
  }
}

// The caller's; and the disk writes what a layer's blocks have left while those of the layers before it run.
BlockObserver BCD::observer_of_run() const {
  if (!run_) {
    return observer_;
  }
  return [this](const char* block, size_t layer) {
    if (*block == 'W') {
      for (const char* variable : {"U", "V", "residual"}) {
        run_->start_writing(variable, layer);
      }
    }
    if (observer_) {
      observer_(block, layer);
    }
  };
}

// The residuals of the point are about to be computed where those of the recorded one are.
void BCD::record_stale(const BcdRows& rows) {
  if (run_ && &rows == &data_->bound && rows.residuals == Residuals::kStale && !data_->recorded_stale) {
    run_->record(data_->record(mlp_->committed, rows, Residuals::kStale, sweeps()), description());
    data_->recorded_stale = true;
  }
}

// The end of a complete sweep, of the bound data or of a batch beside them.
void BCD::commit_recorded(bool batch, Residuals residuals) {
  const BcdRows& bound = data_->bound;
  const Residuals next = batch ? Residuals::kStale : residuals;
  const auto record = [&](bool after) {
    if (!after) {
      data_->recorded_stale = bound.residuals == Residuals::kStale;
    }
    return data_->record(after ? mlp_->next : mlp_->committed, bound, after ? next : bound.residuals,
                         sweeps() + (after ? 1 : 0));
  };
  commit(record, /*other_set=*/!batch);
  data_->recorded_stale = next == Residuals::kStale;
}

}  // namespace torchbcd
