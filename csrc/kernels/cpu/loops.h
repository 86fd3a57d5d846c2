// What loops vectorised for the processor they run on are written with: a function with
// TORCHBCD_TARGET_CLONES is compiled once an instruction set and chosen by the dynamic loader. Contraction to
// fused multiply-adds is off (CMakeLists.txt), so that every one of them gives the same bits.
#pragma once

#include <cstdint>

#include "functors/host_device.h"

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

/// The sum of `number`(i), i < n, in float64: eight sums side by side, in an order that does not depend on
/// the instruction set.
template <typename Number>
TORCHBCD_HOST_DEVICE double sum_in_lanes(int64_t n, const Number& number) {
  double lane[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) {
      lane[j] += static_cast<double>(number(i + j));
    }
  }
  for (; i < n; ++i) {
    lane[0] += static_cast<double>(number(i));
  }
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

}  // namespace torchbcd::cpu
