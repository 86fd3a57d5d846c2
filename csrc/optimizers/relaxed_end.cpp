// Where a sweep of RelaxedBCD ends: what the next one goes on from, in memory and in a folder's record.
#include <ATen/ops/add.h>

#include <optional>
#include <utility>
#include <vector>

#include "linalg/affine_map.h"
#include "optimizers/relaxed_data.h"
#include "optimizers/saved_state.h"
#include "optimizers/scratch_run.h"

namespace torchbcd {

void RelaxedBCD::Data::Course::save(SavedState& state) const {
  state.numbers["standardize"] = {standardize ? static_cast<double>(*standardize) : -1};
  save_maps(state, velocity, "_velocity");
}

RelaxedBCD::Data::Course RelaxedBCD::Data::Course::read(const StateReader& reader,
                                                        const std::vector<AffineMap>& like) {
  Course course;
  const double standardize = reader.number("standardize");
  if (standardize >= 0) {
    course.standardize = standardize > 0;
  }
  if (reader.has("weight_velocity")) {
    course.velocity = reader.maps(like, "_velocity");
  }
  return course;
}

SavedState RelaxedBCD::Data::record(const RelaxedRows& rows, const std::vector<AffineMap>& maps,
                                    const Course& course, const RelaxedStates& states, int64_t sweeps) {
  SavedState state;
  state.numbers["sweeps"] = {static_cast<double>(sweeps)};
  state.numbers["rows"] = {static_cast<double>(rows.rows())};
  state.numbers["row_weights"] = {static_cast<double>(rows.weights.defined() ? rows.rows() : 1)};
  state.numbers["states"] = {states.empty() ? 0.0 : 1.0};
  state.numbers["penalties"] = states.empty() ? std::vector<double>() : rows.penalties;
  save_maps(state, maps);
  course.save(state);
  return state;
}

// Rows have been bound in a folder: its run begins, or is gone on with. Returns whether the data want their
// inputs standardised, where that is known.
std::optional<bool> RelaxedBCD::begin_run(ScratchRun& run, RelaxedRows& rows) {
  if (!run.resumed()) {
    // Whether other data wanted to be standardised says nothing of these.
    const Data::Course course{std::nullopt, data_->velocity};
    run.begin(Data::record(rows, mlp_->committed, course, {}, sweeps()), description());
    return course.standardize;
  }
  const SavedState recorded = run.recorded();
  const StateReader reader(mlp_->name, recorded);
  Data::Course course = Data::Course::read(reader, mlp_->committed);
  if (reader.count("states") != 0) {
    rows.saved = RelaxedStates::allocate(rows.rows(), mlp_->committed, run.storage(), run.current_set());
    rows.penalties = reader.numbers("penalties", mlp_->depth());
  }
  take_up(reader, rows.rows(), rows.weights.defined() ? rows.rows() : 1);
  data_->velocity = std::move(course.velocity);
  return course.standardize;
}

// The sweep's U and V go to where the last one's are not.
void RelaxedBCD::save_states() {
  RelaxedRows& rows = data_->bound;
  if (rows.next_saved.empty()) {
    rows.next_saved =
        run_ ? RelaxedStates::allocate(rows.rows(), mlp_->committed, run_->new_files(), run_->other_set())
             : RelaxedStates::allocate(rows.rows(), mlp_->committed);
  }
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    at::add_out(rows.next_saved.u[l], rows.p[l], rows.slack[l]);
    rows.next_saved.v[l].copy_(rows.v[l]);
  }
}

void RelaxedBCD::commit_recorded(bool persistent, bool step_to_go_on_with) {
  Data& d = *data_;
  const bool keeps_step = step_to_go_on_with && d.has_momentum();
  if (keeps_step) {
    if (d.next_velocity.empty()) {
      d.next_velocity = allocate_like(mlp_->committed);
    }
    difference_out(mlp_->next, mlp_->committed, d.next_velocity);
  }
  const auto record = [&](bool after) {
    return Data::record(d.bound, after ? mlp_->next : mlp_->committed,
                        {d.standardize, after && keeps_step ? d.next_velocity : d.velocity},
                        after && persistent ? d.bound.next_saved : d.bound.saved, sweeps() + (after ? 1 : 0));
  };
  commit(record, /*other_set=*/persistent);
  if (keeps_step) {
    std::swap(d.velocity, d.next_velocity);
  }
  if (persistent) {
    std::swap(d.bound.saved, d.bound.next_saved);
  }
}

}  // namespace torchbcd
