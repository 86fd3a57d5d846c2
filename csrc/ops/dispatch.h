// A typed call through PyTorch's dispatcher, so that C++ callers meet the same operator (its
// autograd rule, its tracing) as Python and TorchScript callers.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

namespace torchbcd {

template <typename Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace torchbcd
