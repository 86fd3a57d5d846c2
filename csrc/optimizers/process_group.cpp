#include "optimizers/process_group.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace torchbcd {
namespace {

// In place. Never through Python, where wait_tensor has its autograd: gloo's threads drop the tensor some
// time after its values are there, and one that Python has seen takes the interpreter's lock for that, which
// aborts the process where the interpreter is ending. Nor is the group kept alive.
void collective(const char* name, const at::Tensor& values, const c10::IValue& how,
                const std::string& group) {
  const at::AutoDispatchBelowAutograd below_autograd;
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  torch::jit::Stack stack{values, how, group};
  dispatcher.findSchemaOrThrow(name, "").callBoxed(stack);
  dispatcher.findSchemaOrThrow("_c10d_functional::wait_tensor", "").callBoxed(stack);
}

}  // namespace

void broadcast_from_first_rank(const std::vector<at::Tensor>& tensors, const std::string& group) {
  for (const at::Tensor& t : tensors) {
    const at::Tensor values = t.detach().clone(at::MemoryFormat::Contiguous);
    collective("_c10d_functional::broadcast_", values, 0, group);
    t.copy_(values);
  }
}

SumOverRanks sum_over_process_group(const std::string& group) {
  return [group](const at::Tensor& sums) { collective("_c10d_functional::all_reduce_", sums, "sum", group); };
}

}  // namespace torchbcd
