// The passes that also measure on the CPU.
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <utility>

#include "functors/summed.h"
#include "kernels/cpu/loops.h"
#include "kernels/instantiate.h"

namespace torchbcd::kernels {
namespace {

constexpr int64_t kTile = 64;  // elements whose terms wait on the stack to be added up in float64

// Elements [0, n): the results into `out`, the sums into `sums`. The terms are added in a fixed order.
template <typename T, typename Functor, typename Result, size_t... In>
TORCHBCD_TARGET_CLONES void summed_loop(Functor f, int64_t n, std::array<T*, 3> out,
                                        std::array<const T*, sizeof...(In)> in, double* sums,
                                        std::index_sequence<In...>) {
  double total[Functor::Pass::sums] = {};
  double term[Functor::Pass::sums][kTile];
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t size = std::min(kTile, n - begin);
    TORCHBCD_VECTORIZE
    for (int64_t i = 0; i < size; ++i) {
      const Result result = f(in[In][begin + i]...);
      for (int t = 0; t < Functor::Pass::outputs; ++t) {
        out[t][begin + i] = result.out[t];
      }
      for (int k = 0; k < Functor::Pass::sums; ++k) {
        term[k][i] = result.sum[k];
      }
    }
    for (int k = 0; k < Functor::Pass::sums; ++k) {
      total[k] += cpu::sum_in_lanes(size, [t = term[k]](int64_t i) { return t[i]; });
    }
  }
  std::copy_n(total, Functor::Pass::sums, sums);
}

}  // namespace

template <>
struct Loop<Cpu, functors::Summed> {
  // `scale`, where given, is the functor's, which the host may not read on every device.
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Summed::Layout& layout,
                  const Functor& functor, const double* scale = nullptr) {
    using Pass = typename Functor::Pass;
    const int64_t n = iter.numel();
    const int64_t chunks = (n + layout.chunk - 1) / layout.chunk;
    const int64_t grain = std::max<int64_t>(1, functors::kSumChunk / layout.chunk);
    at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
      Functor f = functor;
      if constexpr (Pass::scale_on_device) {
        f.scale = static_cast<T>(*scale);
      }
      for (int64_t chunk = first; chunk < last; ++chunk) {
        const int64_t begin = chunk * layout.chunk;
        std::array<T*, 3> out = {};
        std::array<const T*, Pass::inputs> in = {};
        for (int t = 0; t < Pass::outputs; ++t) {
          out[t] = static_cast<T*>(iter.data_ptr(t)) + begin;
        }
        for (int t = 0; t < Pass::inputs; ++t) {
          in[t] = static_cast<const T*>(iter.data_ptr(Pass::outputs + t)) + begin;
        }
        summed_loop<T, Functor, typename Functor::Result>(f, std::min(layout.chunk, n - begin), out, in,
                                                          layout.partial + chunk * Pass::sums,
                                                          std::make_index_sequence<Pass::inputs>{});
      }
    });
  }
};

TORCHBCD_SUMMED_PASSES(TORCHBCD_INSTANTIATE, Cpu)

}  // namespace torchbcd::kernels
