#include "doors/operators/operators.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <tuple>

#include "doors/operators/functions.h"
#include "doors/operators/table.h"
#include "torchbcd/functional.h"

namespace torchbcd {
namespace {

using namespace operators;

// The parts of an implementation's type, of which its C++ function is made.
template <typename Function>
struct Signature;
template <typename R, typename... Arguments>
struct Signature<R (*)(Arguments...)> {
  using Type = R(Arguments...);
  using Result = R;
  template <size_t i>
  using Argument = std::tuple_element_t<i, std::tuple<Arguments...>>;
};

}  // namespace

// --- the C++ functions: calls through the dispatcher, so that C++ programs meet the operator (its tracing,
// its autograd rule) that Python and TorchScript programs meet ---

#define TORCHBCD_ARGUMENT(I, FUNCTION) Signature<decltype(&FUNCTION)>::Argument<I> a##I
#define TORCHBCD_FRONT(NAME, FUNCTION, PARAMETERS, ARGUMENTS)                  \
  Signature<decltype(&FUNCTION)>::Result NAME PARAMETERS {                     \
    static const auto op = c10::Dispatcher::singleton()                        \
                               .findSchemaOrThrow("torchbcd::" #NAME, "")      \
                               .typed<Signature<decltype(&FUNCTION)>::Type>(); \
    return op.call ARGUMENTS;                                                  \
  }
#define TORCHBCD_FRONT_0(NAME, F)
#define TORCHBCD_FRONT_1(NAME, F) TORCHBCD_FRONT(NAME, F, (TORCHBCD_ARGUMENT(0, F)), (a0))
#define TORCHBCD_FRONT_2(NAME, F) \
  TORCHBCD_FRONT(NAME, F, (TORCHBCD_ARGUMENT(0, F), TORCHBCD_ARGUMENT(1, F)), (a0, a1))
#define TORCHBCD_FRONT_3(NAME, F)                                                                      \
  TORCHBCD_FRONT(NAME, F, (TORCHBCD_ARGUMENT(0, F), TORCHBCD_ARGUMENT(1, F), TORCHBCD_ARGUMENT(2, F)), \
                 (a0, a1, a2))
#define TORCHBCD_FRONT_4(NAME, F)                                                                           \
  TORCHBCD_FRONT(                                                                                           \
      NAME, F,                                                                                              \
      (TORCHBCD_ARGUMENT(0, F), TORCHBCD_ARGUMENT(1, F), TORCHBCD_ARGUMENT(2, F), TORCHBCD_ARGUMENT(3, F)), \
      (a0, a1, a2, a3))
#define TORCHBCD_FRONT_5(NAME, F)                                                            \
  TORCHBCD_FRONT(NAME, F,                                                                    \
                 (TORCHBCD_ARGUMENT(0, F), TORCHBCD_ARGUMENT(1, F), TORCHBCD_ARGUMENT(2, F), \
                  TORCHBCD_ARGUMENT(3, F), TORCHBCD_ARGUMENT(4, F)),                         \
                 (a0, a1, a2, a3, a4))
#define TORCHBCD_FRONT_6(NAME, F)                                                             \
  TORCHBCD_FRONT(NAME, F,                                                                     \
                 (TORCHBCD_ARGUMENT(0, F), TORCHBCD_ARGUMENT(1, F), TORCHBCD_ARGUMENT(2, F),  \
                  TORCHBCD_ARGUMENT(3, F), TORCHBCD_ARGUMENT(4, F), TORCHBCD_ARGUMENT(5, F)), \
                 (a0, a1, a2, a3, a4, a5))
#define TORCHBCD_DEFINE_FRONT(NAME, ARGUMENTS, SCHEMA, FUNCTION, KIND) \
  TORCHBCD_FRONT_##ARGUMENTS(NAME, FUNCTION)
TORCHBCD_OPERATORS(TORCHBCD_DEFINE_FRONT)

#define TORCHBCD_ROW(NAME, ARGUMENTS, SCHEMA, FUNCTION, KIND) {#NAME, SCHEMA, #KIND},
std::vector<OperatorRow> operator_table() { return {TORCHBCD_OPERATORS(TORCHBCD_ROW)}; }

namespace {

std::vector<std::string> names_and_kinds() {
  std::vector<std::string> listed;
  for (const OperatorRow& row : operator_table()) {
    listed.push_back(row.name + " " + row.kind);
  }
  return listed;
}

void implement(torch::Library& m) {
#define TORCHBCD_IMPLEMENT(NAME, ARGUMENTS, SCHEMA, FUNCTION, KIND) m.impl(#NAME, &FUNCTION);
  TORCHBCD_OPERATORS(TORCHBCD_IMPLEMENT)
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torchbcd, m) {
  for (const OperatorRow& row : operator_table()) {
    m.def((row.name + row.schema).c_str());
  }
  m.def("_operator_table() -> str[]", &names_and_kinds);
}

TORCH_LIBRARY_IMPL(torchbcd, CPU, m) { implement(m); }
#if defined(TORCHBCD_WITH_CUDA)
TORCH_LIBRARY_IMPL(torchbcd, CUDA, m) { implement(m); }
#endif
TORCH_LIBRARY_IMPL(torchbcd, Autograd, m) {
  for (const OperatorRow& row : operator_table()) {
    m.impl(row.name.c_str(), torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace torchbcd
