#include "optimizers/scratch_run.h"

#include <c10/util/Exception.h>

#include "optimizers/dicts.h"
#include "optimizers/pickles.h"
#include "optimizers/saved_state.h"

namespace torchbcd {
namespace {

constexpr const char* kFiles = "torchbcd.";
constexpr const char* kRecord = "torchbcd.record";

}  // namespace

ScratchRun::ScratchRun(const char* op, const ScratchDir& dir)
    : folder_(op, dir.path), memory_(std::make_shared<ScratchMemory>(op, dir.path)) {
  folder_.remove_all(ScratchMemory::kFiles);
  if (!folder_.holds(kRecord)) {
    folder_.remove_all(kFiles);  // a bind that did not come to its end
    return;
  }
  TORCH_CHECK_VALUE(dir.resume, op, ": scratch_dir must hold no run, or resume=True must ask for it (got '",
                    dir.path, "', which has one: go on with it, give another folder, or remove its files)");
  found_ = unpickled(folder_.path_of(kRecord));
  second_ = entry(as_dict("the record", found_), "second").toBool();
}

SavedState ScratchRun::recorded() const { return from_dict(as_dict("the record", found_)); }

RowStorage ScratchRun::new_files() {
  return {[this](const std::string& name, at::IntArrayRef sizes, const at::TensorOptions& options) {
            return folder_.create(kFiles + name, sizes, options);
          },
          /*filled=*/false};
}

RowStorage ScratchRun::storage() {
  if (!resumed()) {
    return new_files();
  }
  return {[this](const std::string& name, at::IntArrayRef sizes, const at::TensorOptions& options) {
            return folder_.open(kFiles + name, sizes, options);
          },
          /*filled=*/true};
}

void ScratchRun::write(bool second, const SavedState& state, const c10::IValue& description) {
  c10::impl::GenericDict record = to_dict(state);
  for (const auto& item : description.toGenericDict()) {
    record.insert(item.key(), item.value());
  }
  record.insert("second", second);
  folder_.replace(kRecord, pickled(record));
}

void ScratchRun::begin(const SavedState& state, const c10::IValue& description) {
  folder_.sync(kFiles);
  write(second_, state, description);
  folder_.keep();
}

void ScratchRun::start_writing(const std::string& variable, size_t layer) const {
  folder_.start_writing(kFiles + other_set() + variable + std::to_string(layer));
}

void ScratchRun::commit(const SavedState& state, const c10::IValue& description) {
  folder_.sync(kFiles + other_set());
  write(!second_, state, description);
  second_ = !second_;
  folder_.keep();
}

}  // namespace torchbcd
