// The passes over entries and over rows on the CPU.
#include <algorithm>
#include <array>

#include "functors/row_losses.h"
#include "functors/updates.h"
#include "kernels/cpu/loops.h"
#include "kernels/instantiate.h"

namespace torchbcd::kernels {

template <>
struct Loop<Cpu, functors::Entries> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Entries::Layout&, const Functor& functor) {
    cpu::elementwise<T, Functor::Pass::inputs, Functor::Pass::outputs>(iter, functor);
  }
};

template <>
struct Loop<Cpu, functors::Rows> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Rows::Layout& layout,
                  const Functor& functor) {
    constexpr size_t tensors = Functor::Pass::inputs + 1;
    const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, layout.classes));
    iter.for_each(
        [&](char** data, const int64_t* strides, int64_t n) {
          for (int64_t i = 0; i < n; ++i) {
            std::array<T*, tensors> row;
            for (size_t t = 0; t < tensors; ++t) {
              row[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
            }
            functor(row.data(), layout);
          }
        },
        grain);
  }
};

template struct Kernel<functors::ActivationDerivative, Cpu>;
template struct Kernel<functors::ActivationProx, Cpu>;
template struct Kernel<functors::ActivationSlopes, Cpu>;
template struct Kernel<functors::ActivationValue, Cpu>;
template struct Kernel<functors::AuxiliaryUpdate, Cpu>;
template struct Kernel<functors::LossGradient, Cpu>;
template struct Kernel<functors::LossGradientLipschitz, Cpu>;
template struct Kernel<functors::LossProx, Cpu>;
template struct Kernel<functors::LossSubdifferential, Cpu>;
template struct Kernel<functors::LossUpdate, Cpu>;
template struct Kernel<functors::LossValue, Cpu>;
template struct Kernel<functors::OutputCentre, Cpu>;
template struct Kernel<functors::RegularizerPenalty, Cpu>;
template struct Kernel<functors::RegularizerProx, Cpu>;
template struct Kernel<functors::RegularizerSubdifferential, Cpu>;
template struct Kernel<functors::RowLossGradient, Cpu>;
template struct Kernel<functors::RowLossGradientLipschitz, Cpu>;
template struct Kernel<functors::RowLossUpdate, Cpu>;
template struct Kernel<functors::RowLossValue, Cpu>;

}  // namespace torchbcd::kernels
