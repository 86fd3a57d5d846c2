// Memory for large tensors in files without names, which the system can write out and take back: what malloc
// gives stays in the machine's memory, unless there is swap. POSIX; nothing here knows what the tensors are.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace torchbcd {

/// Files in a folder. What was freed serves the next tensor of about its size.
class ScratchMemory : public std::enable_shared_from_this<ScratchMemory> {
 public:
  /// Files that a process which was killed has left have names that begin so.
  static constexpr const char* kFiles = "torchbcd.memory.";
  /// Tensors of fewer bytes are where they always are.
  static constexpr size_t kLeast = size_t{1} << 20;

  /// `op` is how errors call the owner.
  ScratchMemory(const char* op, std::string folder);
  ~ScratchMemory();
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  /// As long as it lives, the memory of large tensors on the CPU that this thread makes is in `memory`, and
  /// stays there as long as they do; with none, where it always is. A full disk is a c10::Error where a
  /// tensor is made.
  ///
  /// Whoever calls what others have written uses none meanwhile: a library that asks torch for bare memory,
  /// as oneDNN does for convolutions, does not get a file's, and may keep what it has.
  class Use {
   public:
    explicit Use(std::shared_ptr<ScratchMemory> memory);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    std::shared_ptr<ScratchMemory> memory_;
    ScratchMemory* before_ = nullptr;
  };

  c10::DataPtr allocate(size_t bytes);
  /// What is free is given back to the disk.
  void shrink();

 private:
  void* mapped(size_t bytes) const;
  void free(void* begin, size_t bytes);

  std::string op_;
  std::string folder_;
  std::mutex mutex_;
  std::multimap<size_t, void*> free_;  // by their sizes
};

}  // namespace torchbcd
