// What every call of an optimizer happens in: alone, and apart from the modes that torch may be in around it.
#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "linalg/scratch_memory.h"

namespace torchbcd {

/// Who is calling an optimizer, if anybody.
struct Caller {
  std::atomic<std::thread::id> thread;
  int depth = 0;            // of calls within calls, by that thread
  bool stepping = false;    // whether the outermost one is a step, which calls an observer
  bool only_looks = false;  // whether those within may only look: a step's, and those of one that looks
  std::shared_ptr<ScratchMemory> memory;  // where the large tensors of calls are; null: where all are
};

/// As long as it lives, products of float32 matrices keep all their digits, whatever
/// torch.set_float32_matmul_precision or torch.backends.fp32_precision say.
class FullPrecision {
 public:
  FullPrecision();
  ~FullPrecision();
  FullPrecision(const FullPrecision&) = delete;
  FullPrecision& operator=(const FullPrecision&) = delete;

 private:
  std::function<void()> restore_;
};

/// Lives as long as a call. Another thread's call, and one that an observer or a regulariser of one's own
/// makes and that does not only look, is answered with a c10::Error. Within it there are no gradients, no
/// inference mode, no autocast, and its large tensors are where the caller's memory says.
class Call {
 public:
  enum class Kind { kStep, kChange, kLook };

  Call(Caller& caller, const char* name, Kind kind);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  // The first member, so that the others are set up once it is sure that the call is made.
  class Turn {
   public:
    Turn(Caller& caller, const char* name, Kind kind);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Caller& caller_;
  };

  Turn turn_;
  c10::InferenceMode no_inference_{false};
  c10::NoGradGuard no_grad_;
  c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
  FullPrecision full_precision_;
  ScratchMemory::Use in_files_;
};

}  // namespace torchbcd
