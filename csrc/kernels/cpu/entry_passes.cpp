// The passes over entries and over rows on the CPU.
#include <algorithm>
#include <array>
#include <utility>

#include "functors/updates.h"
#include "kernels/cpu/cross_entropy_rows.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/trial_loop.h"
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

// A stretch of entries, as an iterator hands it out.
template <typename T, typename Pass>
struct Stretch {
  char** data;
  const int64_t* strides;
  int64_t n;

  bool contiguous() const {
    return std::all_of(strides, strides + Pass::outputs + Pass::inputs,
                       [](int64_t stride) { return stride == sizeof(T); });
  }
  std::array<T*, Pass::outputs> outputs(int64_t i = 0) const {
    std::array<T*, Pass::outputs> out;
    for (int t = 0; t < Pass::outputs; ++t) {
      out[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
    }
    return out;
  }
  const T* input(size_t t, int64_t i = 0) const {
    return reinterpret_cast<const T*>(data[Pass::outputs + t] + i * strides[Pass::outputs + t]);
  }
  template <typename Result>
  void put(int64_t i, const Result& result) const {
    store<T>(outputs(i), 0, result);
  }
};

template <typename T, typename Functor, size_t... In>
void run_stretch(const Stretch<T, typename Functor::Pass>& stretch, const Functor& functor,
                 std::index_sequence<In...> inputs) {
  if constexpr (functors::solves_by_trials<T, Functor>) {
    if (functors::is_one_prox(functor)) {
      cpu::trial_loop<T>(functor, stretch, inputs);
      return;
    }
  } else if (stretch.contiguous()) {
    contiguous_loop<T>(functor, stretch.n, stretch.outputs(), stretch.input(In)...);
    return;
  }
  for (int64_t i = 0; i < stretch.n; ++i) {
    stretch.put(i, functor(*stretch.input(In, i)...));
  }
}

// A pass that solves a row's problem, which CrossEntropySolver may do faster.
template <typename T, typename Functor>
constexpr bool solves_cross_entropy =
    requires(const Functor& functor, T* const* row, const functors::Rows::Layout& layout) {
      cpu::CrossEntropySolver<T>(1, 1).solve(
          std::array<functors::CrossEntropyRow<T>, 1>{functor.problem(row, layout)}.data(), 1, nullptr);
    };

// The first n rows of a stretch, `row_at`(i), as many at a time as that solver takes.
template <typename T, typename Functor, typename RowAt>
void run_cross_entropy(const Functor& functor, const functors::Rows::Layout& layout, int64_t n,
                       const RowAt& row_at) {
  constexpr int most = cpu::CrossEntropySolver<T>::kRows;
  cpu::CrossEntropySolver<T> solver(layout.classes, n);
  std::array<functors::CrossEntropyRow<T>, most> problems;
  std::array<bool, most> solved;
  for (int64_t begin = 0; begin < n; begin += most) {
    const int size = static_cast<int>(std::min<int64_t>(most, n - begin));
    for (int r = 0; r < size; ++r) {
      problems[r] = functor.problem(row_at(begin + r).data(), layout);
    }
    solver.solve(problems.data(), size, solved.data());
    for (int r = 0; r < size; ++r) {
      if (!solved[r]) {
        functor(row_at(begin + r).data(), layout);
      }
    }
  }
}

}  // namespace

template <>
struct Loop<Cpu, functors::Entries> {
  template <typename T, typename Functor>
  static void run(at::TensorIteratorBase& iter, const functors::Entries::Layout&, const Functor& functor) {
    iter.for_each([&](char** data, const int64_t* strides, int64_t n) {
      run_stretch<T>(Stretch<T, typename Functor::Pass>{data, strides, n}, functor,
                     std::make_index_sequence<Functor::Pass::inputs>{});
    });
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
          const auto row_at = [&](int64_t i) {
            std::array<T*, tensors> row;
            for (size_t t = 0; t < tensors; ++t) {
              row[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
            }
            return row;
          };
          if constexpr (solves_cross_entropy<T, Functor>) {
            run_cross_entropy<T>(functor, layout, n, row_at);
          } else {
            for (int64_t i = 0; i < n; ++i) {
              functor(row_at(i).data(), layout);
            }
          }
        },
        grain);
  }
};

TORCHBCD_ACTIVATION_PASSES(TORCHBCD_INSTANTIATE, Cpu)
TORCHBCD_PROX_PASSES(TORCHBCD_INSTANTIATE, Cpu)
TORCHBCD_LOSS_PASSES(TORCHBCD_INSTANTIATE, Cpu)

}  // namespace torchbcd::kernels
