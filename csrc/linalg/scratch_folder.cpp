#include "linalg/scratch_folder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace torchbcd {
namespace {

constexpr const char* kLockFile = "torchbcd.lock";

std::string reason(int error) { return std::strerror(error); }

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  bool good() const { return fd_ >= 0; }

 private:
  int fd_;
};

size_t bytes_of(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return static_cast<size_t>(c10::multiply_integers(sizes)) * options.dtype().itemsize();
}

bool write_all(int fd, const std::vector<char>& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno != EINTR) {
      return false;
    }
    done += static_cast<size_t>(std::max<ssize_t>(written, 0));
  }
  return true;
}

}  // namespace

ScratchFolder::ScratchFolder(const char* op, std::string path) : op_(op), path_(std::move(path)) {
  struct stat found{};
  TORCH_CHECK_VALUE(::stat(path_.c_str(), &found) == 0, op_, ": scratch_dir must be a folder (got '", path_,
                    "': ", reason(errno), ")");
  TORCH_CHECK_VALUE(S_ISDIR(found.st_mode), op_, ": scratch_dir must be a folder (got the file '", path_,
                    "')");
  Descriptor lock(path_of(kLockFile), O_RDWR | O_CREAT);
  TORCH_CHECK_VALUE(lock.good(), op_, ": scratch_dir must be a folder to write in (got '", path_,
                    "': ", reason(errno), ")");
  TORCH_CHECK_VALUE(::flock(lock.get(), LOCK_EX | LOCK_NB) == 0, op_,
                    ": scratch_dir must be of one optimizer alone (got '", path_,
                    "', in which another one, or this one, has bound data)");
  lock_ = lock.release();
}

ScratchFolder::~ScratchFolder() {
  for (const std::string& file : created_) {
    ::unlink(path_of(file).c_str());
  }
  ::close(lock_);
}

bool ScratchFolder::holds(const std::string& file) const {
  return ::access(path_of(file).c_str(), F_OK) == 0;
}

std::vector<std::string> ScratchFolder::files(const std::string& prefix) const {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && name != kLockFile) {
      found.push_back(name);
    }
  }
  return found;
}

void ScratchFolder::remove_all(const std::string& prefix) const {
  for (const std::string& file : files(prefix)) {
    ::unlink(path_of(file).c_str());
  }
}

at::Tensor ScratchFolder::map(int descriptor, const std::string& file, at::IntArrayRef sizes,
                              const at::TensorOptions& options) const {
  const size_t bytes = bytes_of(sizes, options);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  TORCH_CHECK(memory != MAP_FAILED, op_, ": ", path_of(file), " cannot be mapped: ", reason(errno));
  return at::from_blob(memory, sizes, [bytes](void* begin) { ::munmap(begin, bytes); }, options);
}

at::Tensor ScratchFolder::create(const std::string& file, at::IntArrayRef sizes,
                                 const at::TensorOptions& options) {
  const Descriptor made(path_of(file), O_RDWR | O_CREAT | O_TRUNC);
  TORCH_CHECK(made.good(), op_, ": ", path_of(file), " cannot be written: ", reason(errno));
  created_.push_back(file);
  const size_t bytes = bytes_of(sizes, options);
  if (bytes == 0) {
    return at::empty(sizes, options);
  }
  const int error = ::posix_fallocate(made.get(), 0, static_cast<off_t>(bytes));
  TORCH_CHECK(error == 0, op_, ": scratch_dir must have room (got ", reason(error), " for the ", bytes,
              " bytes of ", path_of(file), ")");
  return map(made.get(), file, sizes, options);
}

at::Tensor ScratchFolder::open(const std::string& file, at::IntArrayRef sizes,
                               const at::TensorOptions& options) const {
  const Descriptor found(path_of(file), O_RDWR);
  TORCH_CHECK_VALUE(found.good(), op_, ": ", path_of(file),
                    " must be there, as the run in scratch_dir left it (", reason(errno), ")");
  const size_t bytes = bytes_of(sizes, options);
  struct stat size{};
  ::fstat(found.get(), &size);
  TORCH_CHECK_VALUE(static_cast<size_t>(size.st_size) == bytes, op_,
                    ": the run in scratch_dir must be of data and layers of the same sizes and dtype (",
                    path_of(file), " must have ", bytes, " bytes for ", sizes, ", got ", size.st_size, ")");
  return bytes == 0 ? at::empty(sizes, options) : map(found.get(), file, sizes, options);
}

void ScratchFolder::start_writing(const std::string& file) const {
#if defined(SYNC_FILE_RANGE_WRITE)
  const Descriptor written(path_of(file), O_RDONLY);
  if (written.good()) {
    ::sync_file_range(written.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }
#endif
}

void ScratchFolder::sync(const std::string& prefix) const {
  for (const std::string& file : files(prefix)) {
    const Descriptor written(path_of(file), O_RDONLY);
    TORCH_CHECK(written.good() && ::fdatasync(written.get()) == 0, op_, ": ", path_of(file),
                " cannot be written to the disk: ", reason(errno));
  }
}

void ScratchFolder::replace(const std::string& file, const std::vector<char>& bytes) const {
  const std::string path = path_of(file);
  const std::string next = path + ".new";
  const Descriptor written(next, O_WRONLY | O_CREAT | O_TRUNC);
  if (!written.good() || !write_all(written.get(), bytes) || ::fsync(written.get()) != 0 ||
      ::rename(next.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(next.c_str());
    TORCH_CHECK(false, op_, ": ", path, " cannot be written: ", reason(error));
  }
  const Descriptor folder(path_, O_RDONLY | O_DIRECTORY);
  ::fsync(folder.get());  // the file is replaced, whether or not this succeeds
}

}  // namespace torchbcd
