#include "linalg/scratch_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>

namespace torchbcd {
namespace {

constexpr size_t kGrain = size_t{1} << 18;  // sizes are multiples of it, so that they meet again

thread_local ScratchMemory* in_use = nullptr;

// Torch's allocator while somebody uses files, in whatever thread: those threads get them, all others what
// they had. Torch reads and sets its allocator as a plain pointer, which is one word.
class FilesWhereAsked final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    return in_use != nullptr && bytes >= ScratchMemory::kLeast ? in_use->allocate(bytes)
                                                               : usual_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return usual_->raw_deleter(); }
  bool is_simple_data_ptr(const c10::DataPtr& data) const override {
    return usual_->is_simple_data_ptr(data);
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  // Whether it is torch's by now: an allocator of a higher priority may stand.
  bool begin() {
    const std::lock_guard lock(mutex_);
    if (users_++ == 0) {
      c10::Allocator* now = c10::GetCPUAllocator();
      usual_ = now == this ? usual_ : now;
      c10::SetCPUAllocator(this);
    }
    return c10::GetCPUAllocator() == this;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (--users_ == 0 && c10::GetCPUAllocator() == this) {
      c10::SetCPUAllocator(usual_);
    }
  }

 private:
  c10::Allocator* usual_ = nullptr;  // stays: a tensor that was made meanwhile may grow later
  std::mutex mutex_;
  int users_ = 0;
};

FilesWhereAsked& allocator() {
  static FilesWhereAsked only;
  return only;
}

}  // namespace

ScratchMemory::ScratchMemory(const char* op, std::string folder) : op_(op), folder_(std::move(folder)) {}

ScratchMemory::~ScratchMemory() { shrink(); }

void ScratchMemory::shrink() {
  const std::lock_guard lock(mutex_);
  for (const auto& [bytes, begin] : free_) {
    ::munmap(begin, bytes);
  }
  free_.clear();
}

// The beginning of so much of a new file's memory; null, with errno, where there is no room.
void* ScratchMemory::mapped(size_t bytes) const {
  std::string path = folder_ + "/" + kFiles + "XXXXXX";
  const int file = ::mkstemp(path.data());
  if (file < 0) {
    return nullptr;
  }
  ::unlink(path.c_str());
  // Room now, rather than a signal where there is none when a page is first written to.
  const int error = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* begin = error == 0 ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  const int why = error == 0 ? errno : error;
  ::close(file);
  errno = why;
  return begin == MAP_FAILED ? nullptr : begin;
}

c10::DataPtr ScratchMemory::allocate(size_t bytes) {
  struct Held {
    std::shared_ptr<ScratchMemory> memory;
    void* begin;
    size_t bytes;
  };
  auto held =
      std::make_unique<Held>(Held{shared_from_this(), nullptr, (bytes + kGrain - 1) / kGrain * kGrain});
  {
    const std::lock_guard lock(mutex_);
    const auto fitting = free_.lower_bound(held->bytes);
    if (fitting != free_.end() && fitting->first <= held->bytes + held->bytes / 4) {
      std::tie(held->bytes, held->begin) = *fitting;
      free_.erase(fitting);
    }
  }
  if (held->begin == nullptr) {
    held->begin = mapped(held->bytes);
  }
  if (held->begin == nullptr) {
    shrink();  // what others have left, of other sizes
    held->begin = mapped(held->bytes);
  }
  TORCH_CHECK(held->begin != nullptr, op_, ": scratch_dir must have room (got ", std::strerror(errno),
              " for ", held->bytes, " bytes in ", folder_, ")");
  void* const begin = held->begin;
  return {begin, held.release(),
          [](void* context) {
            const std::unique_ptr<Held> last(static_cast<Held*>(context));
            last->memory->free(last->begin, last->bytes);
          },
          c10::Device(c10::kCPU)};
}

void ScratchMemory::free(void* begin, size_t bytes) {
  const std::lock_guard lock(mutex_);
  free_.emplace(bytes, begin);
}

ScratchMemory::Use::Use(std::shared_ptr<ScratchMemory> memory) : memory_(std::move(memory)) {
  if (memory_ && !allocator().begin()) {
    allocator().end();
    TORCH_CHECK(false, memory_->op_,
                ": a scratch_dir needs an allocator of CPU memory that can be replaced, as torch's own is "
                "(another one was set with a priority above 0)");
  }
  before_ = std::exchange(in_use, memory_.get());
}

ScratchMemory::Use::~Use() {
  in_use = before_;
  if (memory_) {
    allocator().end();
  }
}

}  // namespace torchbcd
