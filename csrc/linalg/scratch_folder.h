// A folder whose files are the memory of tensors, which may so be larger than the machine's and outlive the
// process. Files and mappings of POSIX; nothing here knows what the tensors are.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace torchbcd {

/// A folder that belongs to this object as long as it lives. What is written into its tensors is in the files
/// when the process ends, whatever ends it; after sync() when the machine does, too.
class ScratchFolder {
 public:
  /// Throws a ValueError, in the name of `op`, where there is no such folder, nothing can be written there,
  /// or another object, here or in another process, has it.
  ScratchFolder(const char* op, std::string path);
  /// Removes the files that it has created, unless they were kept.
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string path_of(const std::string& file) const { return path_ + "/" + file; }
  bool holds(const std::string& file) const;
  /// Removes the files whose names begin so.
  void remove_all(const std::string& prefix) const;

  /// A tensor in a new file, not set. Its room on the disk is there when this returns: a disk that is full is
  /// a c10::Error here, not a signal later.
  at::Tensor create(const std::string& file, at::IntArrayRef sizes, const at::TensorOptions& options);
  /// A tensor in a file that is there. Throws a ValueError where that is not as large.
  at::Tensor open(const std::string& file, at::IntArrayRef sizes, const at::TensorOptions& options) const;
  /// What it has created stays.
  void keep() { created_.clear(); }

  /// Has the disk begin to write what the tensor in a file holds, which sync() will wait for. Does nothing
  /// where the system has no such thing.
  void start_writing(const std::string& file) const;
  /// Has the disk hold what the tensors in the files whose names begin so do.
  void sync(const std::string& prefix) const;
  /// Replaces a file: whoever reads it finds all of what it was, or all of what it is, also where the process
  /// or the machine ends in the middle. Throws a c10::Error, the file as it was, where the disk is full.
  void replace(const std::string& file, const std::vector<char>& bytes) const;

 private:
  std::vector<std::string> files(const std::string& prefix) const;
  at::Tensor map(int descriptor, const std::string& file, at::IntArrayRef sizes,
                 const at::TensorOptions& options) const;

  std::string op_;
  std::string path_;
  int lock_ = -1;
  std::vector<std::string> created_;
};

}  // namespace torchbcd
