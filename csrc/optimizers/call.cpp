#include "optimizers/call.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#include <array>
#include <optional>
#include <utility>

namespace torchbcd {
namespace {

// What torch.set_float32_matmul_precision was told, unless newer settings contradict it.
std::optional<at::Float32MatmulPrecision> matmul_precision() {
  try {
    return at::globalContext().float32MatmulPrecision();
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

void set_matmul_precision(at::Float32MatmulPrecision precision) {
  constexpr std::array kNames = {"highest", "high", "medium"};
  at::globalContext().setFloat32MatmulPrecision(kNames.at(static_cast<size_t>(precision)));
}

}  // namespace

FullPrecision::FullPrecision() {
  at::Context& context = at::globalContext();
  const auto now = [&](at::Float32Backend backend) {
    return context.float32Precision(backend, at::Float32Op::MATMUL);
  };
  const auto rounds = [](at::Float32Precision p) {
    return p == at::Float32Precision::TF32 || p == at::Float32Precision::BF16;
  };
  const std::array before = {std::pair{at::Float32Backend::MKLDNN, now(at::Float32Backend::MKLDNN)},
                             std::pair{at::Float32Backend::CUDA, now(at::Float32Backend::CUDA)}};
  if (!rounds(before[0].second) && !rounds(before[1].second)) {
    return;
  }
  if (const std::optional<at::Float32MatmulPrecision> told = matmul_precision()) {
    set_matmul_precision(at::Float32MatmulPrecision::HIGHEST);
    restore_ = [told] { set_matmul_precision(*told); };
    return;
  }
  for (const auto& [backend, precision] : before) {
    context.setFloat32Precision(backend, at::Float32Op::MATMUL, at::Float32Precision::IEEE);
  }
  restore_ = [before, &context] {
    for (const auto& [backend, precision] : before) {
      context.setFloat32Precision(backend, at::Float32Op::MATMUL, precision);
    }
  };
}

FullPrecision::~FullPrecision() {
  if (restore_) {
    restore_();
  }
}

Call::Turn::Turn(Caller& caller, const char* name, Kind kind) : caller_(caller) {
  const std::thread::id self = std::this_thread::get_id();
  std::thread::id holder;
  if (!caller.thread.compare_exchange_strong(holder, self)) {
    TORCH_CHECK(holder == self, name, ": another thread is in a call of this optimizer; one call at a time");
    TORCH_CHECK(!caller.stepping || kind == Kind::kLook, name,
                ": a sweep is running, of which an observer may only look at the optimizer");
    TORCH_CHECK(!caller.only_looks || kind == Kind::kLook, name,
                ": a call is reading the optimizer, which functions that it calls may only look at");
  }
  if (caller.depth++ == 0) {
    caller.stepping = kind == Kind::kStep;
    caller.only_looks = kind != Kind::kChange;
  }
}

Call::Turn::~Turn() {
  if (--caller_.depth == 0) {
    caller_.stepping = false;
    caller_.only_looks = false;
    caller_.thread.store({});
  }
}

Call::Call(Caller& caller, const char* name, Kind kind)
    : turn_(caller, name, kind), in_files_(caller.memory) {}

Call::~Call() = default;

}  // namespace torchbcd
