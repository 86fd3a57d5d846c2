// Loops over the elements of a TensorIterator, vectorised for the processor they run on.
//
// The contiguous loop is compiled once an instruction set and chosen by the dynamic loader.
// Contraction to fused multiply-adds is off (CMakeLists.txt), so that every one of them gives the
// same bits.
#pragma once

#include <ATen/TensorIterator.h>

#include <array>
#include <cstdint>
#include <utility>

#include "functors/pair.h"

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define TORCHBCD_TARGET_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define TORCHBCD_VECTORIZE _Pragma("GCC ivdep")
#elif defined(__clang__)
#define TORCHBCD_TARGET_CLONES
#define TORCHBCD_VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
#else
#define TORCHBCD_TARGET_CLONES
#define TORCHBCD_VECTORIZE
#endif

namespace torchbcd::cpu {

// How a functor's result goes into the outputs: a number into one, a pair's members into two.
template <typename T, size_t outputs>
struct Store;

template <typename T>
struct Store<T, 1> {
  static constexpr int outputs = 1;

  static inline __attribute__((always_inline)) void at(const std::array<T*, 1>& out, int64_t i, T value) {
    out[0][i] = value;
  }
};

template <typename T>
struct Store<T, 2> {
  static constexpr int outputs = 2;

  static inline __attribute__((always_inline)) void at(const std::array<T*, 2>& out, int64_t i,
                                                       const functors::Pair<T>& pair) {
    out[0][i] = pair.first;
    out[1][i] = pair.second;
  }
};

// An output may be one of the inputs: element i of either depends on element i alone.
template <typename T, typename Functor, typename Result, size_t outputs, typename... In>
TORCHBCD_TARGET_CLONES void contiguous_loop(Functor functor, int64_t n, std::array<T*, outputs> out,
                                            In... in) {
  TORCHBCD_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    Result::at(out, i, functor(in[i]...));
  }
}

template <typename T, typename Functor, typename Result, size_t... I>
void loop(at::TensorIteratorBase& iterator, const Functor& functor, std::index_sequence<I...>) {
  constexpr int outputs = Result::outputs;
  constexpr int tensors = outputs + static_cast<int>(sizeof...(I));
  iterator.for_each([&](char** data, const int64_t* strides, int64_t n) {
    bool contiguous = true;
    for (int t = 0; t < tensors; ++t) {
      contiguous = contiguous && strides[t] == static_cast<int64_t>(sizeof(T));
    }
    std::array<T*, outputs> out;
    if (contiguous) {
      for (int t = 0; t < outputs; ++t) {
        out[t] = reinterpret_cast<T*>(data[t]);
      }
      contiguous_loop<T, Functor, Result>(functor, n, out, reinterpret_cast<const T*>(data[outputs + I])...);
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int t = 0; t < outputs; ++t) {
        out[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
      }
      Result::at(out, 0,
                 functor(*reinterpret_cast<const T*>(data[outputs + I] + i * strides[outputs + I])...));
    }
  });
}

/// outputs[...] = functor(inputs...) elementwise, in parallel.
template <typename T, size_t inputs, size_t outputs, typename Functor>
void elementwise(at::TensorIteratorBase& iterator, const Functor& functor) {
  loop<T, Functor, Store<T, outputs>>(iterator, functor, std::make_index_sequence<inputs>{});
}

}  // namespace torchbcd::cpu
