// What optimizers with bound data in a folder share: what that asks for, taking up a run, the end of a sweep.
#include <c10/util/Exception.h>

#include <functional>
#include <memory>

#include "linalg/affine_map.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"
#include "optimizers/trained_mlp.h"

namespace torchbcd {

void SplitOptimizer::check_takes_folder() const {
  TORCH_CHECK_VALUE(
      !has_other_ranks(), mlp_->name,
      ": a scratch_dir takes no process_group, whose processes a record of each would not bring "
      "to one sweep");
  const at::Device device = mlp_->committed.front().weight.device();
  TORCH_CHECK_VALUE(device.is_cpu(), mlp_->name,
                    ": a scratch_dir needs the model on the CPU, whose memory its files are (got ", device,
                    ")");
}

std::unique_ptr<ScratchRun> SplitOptimizer::open_run(const ScratchDir& dir) const {
  TORCH_CHECK_VALUE(!dir.resume || !dir.path.empty(), mlp_->name, ": resume needs a scratch_dir");
  if (dir.path.empty()) {
    return nullptr;
  }
  check_takes_folder();
  auto run = std::make_unique<ScratchRun>(mlp_->name, dir);
  if (run->resumed()) {
    check_description(run->found(), "the run in scratch_dir");
  }
  return run;
}

void SplitOptimizer::keep_in(std::unique_ptr<ScratchRun> run) {
  run_ = std::move(run);
  mlp_->caller.memory = run_ ? run_->memory() : nullptr;
}

void SplitOptimizer::refuse_state_in_folder() const {
  TORCH_CHECK_VALUE(
      !run_, mlp_->name,
      ": a state of data bound with a scratch_dir would be all of it in memory; the folder has it: "
      "keep the folder, and bind with it and resume=True");
}

void SplitOptimizer::take_up(const StateReader& recorded, int64_t rows, int64_t row_weights) {
  const auto check_same = [&](const char* what, int64_t mine, const char* must) {
    TORCH_CHECK_VALUE(recorded.count(what) == mine, mlp_->name, ": the run in scratch_dir must ", must, " (",
                      recorded.count(what), " there, ", mine, " here)");
  };
  check_same("rows", rows, "be of as many rows");
  check_same("row_weights", row_weights, "have as many entries of sample_weight, or 1 for none");
  const int64_t sweeps = recorded.count("sweeps");
  copy_maps(recorded.maps(mlp_->committed), mlp_->next);
  mlp_->commit();
  loaded(sweeps);
}

// The record comes first: where it cannot be written, nothing has changed.
void SplitOptimizer::commit(const std::function<SavedState(bool after)>& record, bool other_set) {
  if (!run_) {
    commit();
    return;
  }
  const auto write = [&](bool after) {
    if (other_set) {
      run_->commit(record(after), description());
    } else {
      run_->record(record(after), description());
    }
  };
  write(/*after=*/true);
  try {
    commit();
  } catch (...) {
    write(/*after=*/false);
    throw;
  }
}

}  // namespace torchbcd
