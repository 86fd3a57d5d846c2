// BCD with its bound data in a folder: what that asks for, the record of a sweep, and going on from one.
#include <c10/util/Exception.h>

#include "optimizers/bcd_data.h"
#include "optimizers/dicts.h"
#include "optimizers/saved_state.h"

namespace torchbcd {

void BCD::check_takes_scratch() const {
  TORCH_CHECK_VALUE(data_->options.splitting() == 3, mlp_->name,
                    ": a scratch_dir needs splitting=3, whose blocks go through the rows in parts (got ",
                    data_->options.splitting(), ")");
  TORCH_CHECK_VALUE(
      !has_other_ranks(), mlp_->name,
      ": a scratch_dir takes no process_group, whose processes a record of each would not bring "
      "to one sweep");
  const at::Device device = mlp_->committed.front().weight.device();
  TORCH_CHECK_VALUE(device.is_cpu(), mlp_->name,
                    ": a scratch_dir needs the model on the CPU, whose memory its files are (got ", device,
                    ")");
}

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

// The point of a record: its weights become the model's.
void BCD::take_up(const ScratchRun& run, BcdRows& rows) {
  const SavedState record = from_dict(as_dict("the record", run.found()));
  const StateReader reader(mlp_->name, record);
  const auto check_same = [&](const char* what, int64_t mine, const char* must) {
    TORCH_CHECK_VALUE(reader.count(what) == mine, mlp_->name, ": the run in scratch_dir ", must, " (",
                      reader.count(what), " there, ", mine, " here)");
  };
  check_same("splitting", data_->options.splitting(), "must have this splitting");
  check_same("rows", rows.rows(), "must be of as many rows");
  check_same("row_weights", rows.row_weight.size(0),
             "must have as many entries of sample_weight, or 1 for none");
  const int64_t sweeps = reader.count("sweeps");
  const int64_t residuals = reader.count("residuals");
  copy_maps(reader.maps(mlp_->committed), mlp_->next);
  mlp_->commit();
  rows.residuals = static_cast<Residuals>(residuals);
  loaded(sweeps);
}

// The caller's; and the disk writes what a layer's blocks have left while those of the layers before it run.
BlockObserver BCD::observer_of_run() const {
  if (!data_->run) {
    return observer_;
  }
  return [this](const char* block, size_t layer) {
    if (*block == 'W') {
      for (const char* variable : {"U", "V", "residual"}) {
        data_->run->start_writing(variable, layer);
      }
    }
    if (observer_) {
      observer_(block, layer);
    }
  };
}

// The residuals of the point are about to be computed where those of the recorded one are.
void BCD::record_stale(const BcdRows& rows) {
  if (data_->run && &rows == &data_->bound && rows.residuals == Residuals::kStale && !data_->recorded_stale) {
    data_->run->record(data_->record(mlp_->committed, rows, Residuals::kStale, sweeps()), description());
    data_->recorded_stale = true;
  }
}

// The end of a complete sweep, of the bound data or of a batch beside them. The record comes first: where it
// cannot be written, nothing has changed.
void BCD::commit_recorded(bool batch, Residuals residuals) {
  if (!data_->run) {
    commit();
    return;
  }
  ScratchRun& run = *data_->run;
  const BcdRows& bound = data_->bound;
  const auto write = [&](const std::vector<AffineMap>& maps, Residuals of, int64_t sweeps) {
    const SavedState state = data_->record(maps, bound, of, sweeps);
    if (batch) {
      run.record(state, description());
    } else {
      run.commit(state, description());
    }
    data_->recorded_stale = of == Residuals::kStale;
  };
  write(mlp_->next, batch ? Residuals::kStale : residuals, sweeps() + 1);
  try {
    commit();
  } catch (...) {
    write(mlp_->committed, bound.residuals, sweeps());
    throw;
  }
}

}  // namespace torchbcd
