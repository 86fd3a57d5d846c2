// The passes over entries and over rows on the CPU.
#include <algorithm>
#include <array>
#include <utility>

#include "functors/updates.h"
#include "kernels/cpu/loops.h"
#include "kernels/instantiate.h"

namespace torchbcd::kernels {
namespace {

// How a functor's result goes into the outputs: a number into one, a pair's members into two.
template <typename T>
TORCHBCD_HOST_DEVICE void store(const std::array<T*, 1>& out, int64_t i, T value) {
  out[0][i] = value;
}
template <typename T>
TORCHBCD_HOST_DEVICE void store(const std::array<T*, 2>& out, int64_t i, const functors::Pair<T>& pair) {
  out[0][i] = pair.first;
  out[1][i] = pair.second;
}

// An output may be one of the inputs: element i of either depends on element i alone.
template <typename T, typename Functor, size_t outputs, typename... In>
TORCHBCD_TARGET_CLONES void contiguous_loop(Functor functor, int64_t n, std::array<T*, outputs> out,
                                            In... in) {
  TORCHBCD_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    store<T>(out, i, functor(in[i]...));
  }
}

template <typename T, typename Functor, size_t... In>
void loop(at::TensorIteratorBase& iterator, const Functor& functor, std::index_sequence<In...>) {
  constexpr int outputs = Functor::Pass::outputs;
  constexpr int tensors = outputs + Functor::Pass::inputs;
  iterator.for_each([&](char** data, const int64_t* strides, int64_t n) {
    const bool contiguous =
        std::all_of(strides, strides + tensors, [](int64_t stride) { return stride == sizeof(T); });
    std::array<T*, outputs> out;
    if (contiguous) {
      for (int t = 0; t < outputs; ++t) {
        out[t] = reinterpret_cast<T*>(data[t]);
      }
      contiguous_loop<T>(functor, n, out, reinterpret_cast<const T*>(data[outputs + In])...);
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int t = 0; t < outputs; ++t) {
        out[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
      }
      store<T>(out, 0,
               functor(*reinterpret_cast<const T*>(data[outputs + In] + i * strides[outputs + In])...));
    }
  });
}

}  // namespace

template <>
struct Loop<Cpu, functors::Entries> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Entries::Layout&, const Functor& functor) {
    loop<T>(iter, functor, std::make_index_sequence<Functor::Pass::inputs>{});
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

TORCHBCD_ACTIVATION_PASSES(TORCHBCD_INSTANTIATE, Cpu)
TORCHBCD_PROX_PASSES(TORCHBCD_INSTANTIATE, Cpu)
TORCHBCD_LOSS_PASSES(TORCHBCD_INSTANTIATE, Cpu)

}  // namespace torchbcd::kernels
