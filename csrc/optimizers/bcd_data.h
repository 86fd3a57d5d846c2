// What a BCD object holds beside its model: options, rows with their split variables, and which of them the
// last step was on.
#pragma once

#include <memory>

#include "optimizers/trained_mlp.h"
#include "sweeps/bcd.h"
#include "torchbcd/bcd.h"

namespace torchbcd {

struct BCD::Data {
  // Which rows the last step was on.
  enum class Stepped { kNothing, kBound, kBoundRows, kBatch };

  BCDOptions options;
  BCDOptions swept;             // those of the last sweep
  bool recorded_stale = false;  // whether a folder's record takes no residuals for those of the point
  BcdRows bound;
  BcdRows batch;  // views of the first rows of the storage
  BcdVariables storage_current;
  BcdVariables storage_next;
  Stepped stepped = Stepped::kNothing;
  bool has_before = false;  // whether the variables of before the last sweep are still there

  BcdProblem problem(const TrainedMlp& mlp, const BCDOptions& with) const {
    return {mlp.name, mlp.activations, mlp.mlp.skips, mlp.loss, mlp.trained, with, mlp.sum_over_ranks};
  }
  // Whether a question is about the batch; `last_rows` asks for the rows of the last step alone.
  bool on_batch(bool last_rows) const {
    return stepped == Stepped::kBatch || (stepped == Stepped::kBoundRows && last_rows);
  }
  void check_before(const char* name) const {
    TORCH_CHECK_VALUE(has_before, name, ": there is no sweep whose starting point is still known");
  }
  // The batch's rows are about to be overwritten: if they were what questions are about, that is gone,
  // whether the step succeeds or not.
  void resize_batch(int64_t rows, const std::vector<AffineMap>& maps);
  // What a run's record holds of a point.
  SavedState record(const std::vector<AffineMap>& maps, const BcdRows& rows, Residuals residuals,
                    int64_t sweeps) const;
  void check_index(const char* name, const at::Tensor& index) const;
  void check_rows(const TrainedMlp& mlp, const at::Tensor& rows, const at::Tensor& x,
                  const at::Tensor& y) const;
};

}  // namespace torchbcd
