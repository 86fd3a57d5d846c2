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
      if constexpr (Functor::Pass::outputs > 0) {
        out[0][begin + i] = result.out[0];
      }
      if constexpr (Functor::Pass::outputs > 1) {
        out[1][begin + i] = result.out[1];
      }
      if constexpr (Functor::Pass::outputs > 2) {
        out[2][begin + i] = result.out[2];
      }
      for (int k = 0; k < Functor::Pass::sums; ++k) {
        term[k][i] = result.sum[k];
      }
    }
    for (int k = 0; k < Functor::Pass::sums; ++k) {
      double lane[8] = {};
      int64_t i = 0;
      for (; i + 8 <= size; i += 8) {
        for (int j = 0; j < 8; ++j) {
          lane[j] += term[k][i + j];
        }
      }
      for (; i < size; ++i) {
        lane[0] += term[k][i];
      }
      total[k] += ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
  }
  for (int k = 0; k < Functor::Pass::sums; ++k) {
    sums[k] = total[k];
  }
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

template struct Kernel<functors::Difference, Cpu>;
template struct Kernel<functors::ExtrapolatedDifference, Cpu>;
template struct Kernel<functors::ImageStep, Cpu>;
template struct Kernel<functors::JointStep, Cpu>;
template struct Kernel<functors::PreimageProjection, Cpu>;
template struct Kernel<functors::RelaxedResidual, Cpu>;
template struct Kernel<functors::ResidualStep, Cpu>;
template struct Kernel<functors::StateDirection, Cpu>;
template struct Kernel<functors::StateMove, Cpu>;
template struct Kernel<functors::SumOfSquares, Cpu>;

}  // namespace torchbcd::kernels
