// From an iterator to a loop over a functor: what Kernel<...>::run does on every device, and for which
// functors. A device's file specialises Loop for the kinds of passes that it runs.
#pragma once

#include <ATen/TensorIterator.h>
#include <c10/util/Exception.h>

#include <type_traits>
#include <variant>

#include "kernels/kernel.h"

namespace torchbcd::kernels {

/// `run<T>(iterator, layout, functor[, scale])`: all that a device writes.
template <typename Device, typename Kind>
struct Loop;

/// A parameter as a functor's member has it: a number in the member's own type, all else as it is.
struct Number {
  double value;
  template <typename T>
  operator T() const {
    return static_cast<T>(value);
  }
};
inline Number as_member(double value) { return {value}; }
inline Number as_member(functors::OnDevice) { return {0}; }  // until a loop sets it
inline const Regularizer& as_member(const Regularizer& regularizer) { return regularizer; }

inline const double* scale_among() { return nullptr; }
template <typename First, typename... Rest>
const double* scale_among(const First& first, const Rest&... rest) {
  if constexpr (std::is_same_v<First, functors::OnDevice>) {
    return first.value;
  } else {
    return scale_among(rest...);
  }
}

template <template <typename, typename> class Functor, typename Device, typename T, typename Layout,
          typename Alternative, typename... Parameters>
void run_typed(at::TensorIteratorBase& iterator, const Layout& layout, const Alternative& chosen,
               const Parameters&... parameters) {
  using Pass = PassOf<Functor>;
  using Run = Loop<Device, typename Pass::Kind>;
  if constexpr (!Pass::Alternatives::template takes<Alternative>) {
    TORCH_INTERNAL_ASSERT(false, "a pass that is not for this activation or loss");
  } else if constexpr (std::is_same_v<Alternative, functors::Nothing>) {
    Run::template run<T>(iterator, layout, Functor<T, Alternative>{as_member(parameters)...});
  } else if constexpr (Pass::scale_on_device) {
    Run::template run<T>(iterator, layout, Functor<T, Alternative>{chosen, as_member(parameters)...},
                         scale_among(parameters...));
  } else {
    Run::template run<T>(iterator, layout, Functor<T, Alternative>{chosen, as_member(parameters)...});
  }
}

template <template <typename, typename> class Functor, typename Device, typename Kind, typename Alternatives,
          int inputs, int outputs, int sums, typename... Parameters>
void Kernel<Functor, Device, functors::Pass<Kind, Alternatives, inputs, outputs, sums, Parameters...>>::run(
    at::TensorIteratorBase& iterator, const typename Kind::Layout& layout,
    const typename Alternatives::Variant& chosen, const Parameters&... parameters) {
  const at::ScalarType type = iterator.common_dtype();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble,
                   "torchbcd: tensors must be float32 or float64 (got ", type, ")");
  std::visit(
      [&](const auto& alternative) {
        if (type == at::kDouble) {
          run_typed<Functor, Device, double>(iterator, layout, alternative, parameters...);
        } else {
          run_typed<Functor, Device, float>(iterator, layout, alternative, parameters...);
        }
      },
      chosen);
}

// The passes: over entries and rows, and those that also measure. A device's files instantiate its loops over
// them.
// clang-format off
#define TORCHBCD_INSTANTIATE(Functor, Device) template struct Kernel<functors::Functor, Device>;
#define TORCHBCD_ACTIVATION_PASSES(X, Device)                                                              \
  X(ActivationDerivative, Device) X(ActivationSlopes, Device) X(ActivationValue, Device)                   \
  X(OutputCentre, Device)
#define TORCHBCD_PROX_PASSES(X, Device) X(ActivationProx, Device) X(AuxiliaryUpdate, Device)
#define TORCHBCD_LOSS_PASSES(X, Device)                                                                    \
  X(LossGradient, Device) X(LossGradientLipschitz, Device) X(LossProx, Device)                             \
  X(LossSubdifferential, Device) X(LossUpdate, Device) X(LossValue, Device) X(RegularizerPenalty, Device)  \
  X(RegularizerProx, Device) X(RegularizerSubdifferential, Device) X(RowLossGradient, Device)              \
  X(RowLossGradientLipschitz, Device) X(RowLossSubgradient, Device) X(RowLossUpdate, Device)               \
  X(RowLossValue, Device)
#define TORCHBCD_SUMMED_PASSES(X, Device)                                                                  \
  X(Difference, Device) X(ExtrapolatedDifference, Device) X(ImageStep, Device) X(JointStep, Device)        \
  X(PreimageProjection, Device) X(RelaxedResidual, Device) X(ResidualStep, Device)                         \
  X(StateDirection, Device) X(StateMove, Device) X(SumOfSquares, Device)
// clang-format on

}  // namespace torchbcd::kernels
