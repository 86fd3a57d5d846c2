// What a RelaxedBCD object holds beside its model: options, rows with their variables, and where its next
// sweep starts.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "optimizers/trained_mlp.h"
#include "sweeps/relaxed.h"
#include "torchbcd/relaxed_bcd.h"

namespace torchbcd {

struct RelaxedBCD::Data {
  // Rows that have been checked, in this process alone.
  struct Given {
    RelaxedData data;
    RelaxedData::Sums sums;

    Given(const TrainedMlp& mlp, const at::Tensor& x, const at::Tensor& y, const at::Tensor& row_weight,
          bool are_classes)
        : data(RelaxedData::of(x, y, row_weight)),
          sums(data.sums(are_classes, mlp.loss, static_cast<bool>(mlp.sum_over_ranks))) {}
    Given() = default;
    // Once the sums are those of all processes.
    RelaxedData measured(const TrainedMlp& mlp) {
      data.measure(mlp.name, mlp.loss, sums);
      return std::move(data);
    }
  };

  // What a sweep takes over from those before it, beside weights and states.
  struct Course {
    std::optional<bool> standardize;
    std::vector<AffineMap> velocity;

    void save(SavedState& state) const;
    static Course read(const StateReader& reader, const std::vector<AffineMap>& like);
  };

  RelaxedBCDOptions options;
  RelaxedBCDOptions swept;               // those of the last sweep
  std::vector<AffineMap> velocity;       // with momentum, the step of the last sweep; otherwise empty
  std::vector<AffineMap> next_velocity;  // where that of the running sweep will be
  std::vector<AffineMap> start_storage;  // with momentum or decay
  bool start_apart = false;              // whether a sweep starts there, rather than at the model's weights
  bool outside = false;                  // whether these are not within their constraints, as the start is
  RelaxedRows bound;
  RelaxedRows storage;                // of mini-batches, as large as the largest so far
  RelaxedRows batch;                  // views of its first rows
  const RelaxedRows* last = nullptr;  // those of the last sweep
  RelaxedProgress progress;
  std::optional<bool> standardize;  // whether the data want it, which the first rows tell
  RelaxedReport report;

  RelaxedProblem problem(const TrainedMlp& mlp, const RelaxedBCDOptions& with) const {
    return {{mlp.name, mlp.activations, mlp.mlp.skips, mlp.loss, mlp.trained, with, mlp.sum_over_ranks},
            mlp.normalizations()};
  }
  const std::vector<AffineMap>& start(const TrainedMlp& mlp) const {
    return start_apart ? start_storage : mlp.committed;
  }
  bool has_momentum() const {
    for (size_t l = 0; l < options.momentum().values().size(); ++l) {
      if (options.momentum_of(l) > 0) {
        return true;
      }
    }
    return false;
  }
  // What a run's record holds of a point.
  static SavedState record(const RelaxedRows& rows, const std::vector<AffineMap>& maps, const Course& course,
                           const RelaxedStates& states, int64_t sweeps);
  // Throws where a row's weight would not be what it is.
  void check_takes_weights(const char* name) const;
  Given checked(const RelaxedBCD& optimizer, const at::Tensor& x, const at::Tensor& y,
                const at::Tensor& sample_weight, const RowStorage& storage = {}) const;
  RelaxedRows& resize_batch(int64_t n, const std::vector<AffineMap>& maps);
};

}  // namespace torchbcd
