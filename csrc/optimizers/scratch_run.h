// A run whose bound data and split variables are in a folder: arrays of rows, two sets of variables, and a
// record of the last complete sweep that says which set is the point and holds the weights that belong to it.
// The record is replaced at the end of every sweep, all or nothing, so that the folder is at a complete sweep
// at every moment.
#pragma once

#include <memory>
#include <string>

#include "linalg/row_storage.h"
#include "linalg/scratch_folder.h"
#include "linalg/scratch_memory.h"
#include "torchbcd/scratch_dir.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

class ScratchRun {
 public:
  /// Takes the folder, and reads its record where the run in it is to be gone on with. Throws a ValueError,
  /// in the name of `op`, where the folder is not to be had, or has a run that nobody asked for.
  ScratchRun(const char* op, const ScratchDir& dir);
  ~ScratchRun() { memory_->shrink(); }

  /// Whether there is a run to go on with; then its record, as it was written and as a state.
  bool resumed() const { return !found_.isNone(); }
  const c10::IValue& found() const { return found_; }
  SavedState recorded() const;

  /// Where the arrays are that stay from sweep to sweep: new files, or those of the run.
  RowStorage storage();
  RowStorage new_files();
  /// Where the others are.
  const std::shared_ptr<ScratchMemory>& memory() const { return memory_; }
  /// The names of the two sets, the current one first: "0." and "1.", or the other way round.
  std::string current_set() const { return set_of(second_ ? 1 : 0); }
  std::string other_set() const { return set_of(second_ ? 0 : 1); }

  /// Ends a bind: has the disk hold all files, and the record say that the first set is the point.
  void begin(const SavedState& state, const c10::IValue& description);
  /// Within a sweep: variables of a layer, counted from 1, are done in the other set. The disk may as well
  /// begin.
  void start_writing(const std::string& variable, size_t layer) const;
  /// Ends a sweep: has the disk hold the other set, and the record say that it is the point. Throws, with the
  /// folder at the sweep before, where the disk is full.
  void commit(const SavedState& state, const c10::IValue& description);
  /// Replaces the record, of the current set.
  void record(const SavedState& state, const c10::IValue& description) { write(second_, state, description); }

 private:
  static std::string set_of(int which) { return std::to_string(which) + "."; }
  void write(bool second, const SavedState& state, const c10::IValue& description);

  ScratchFolder folder_;
  std::shared_ptr<ScratchMemory> memory_;
  c10::IValue found_;
  bool second_ = false;  // whether the second set is the point
};

}  // namespace torchbcd
