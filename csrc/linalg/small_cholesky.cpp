// The Cholesky factors of small matrices and their inverses, in one pass and without LAPACK's overhead.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/loops.h"
#include "linalg/spd.h"

namespace torchbcd::cpu {
namespace {

constexpr int64_t kUnroll = 4;  // rows subtracted from another one at a time

// target[j] -= sum over the `count` <= kUnroll rows of factor[r] row[r][j], j in [begin, end).
template <typename T>
inline __attribute__((always_inline)) void subtract(T* target, const T* rows, int64_t stride, const T* factor,
                                                    int64_t count, int64_t begin, int64_t end) {
  if (count == kUnroll) {
    const T* row1 = rows + stride;
    const T* row2 = row1 + stride;
    const T* row3 = row2 + stride;
    TORCHBCD_VECTORIZE
    for (int64_t j = begin; j < end; ++j) {
      target[j] -= (factor[0] * rows[j] + factor[1] * row1[j]) + (factor[2] * row2[j] + factor[3] * row3[j]);
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    const T* row = rows + r * stride;
    TORCHBCD_VECTORIZE
    for (int64_t j = begin; j < end; ++j) {
      target[j] -= factor[r] * row[j];
    }
  }
}

// Every inner loop runs along a row: of U = L^T, which overwrites the upper triangle in `u`, and of L^{-1}.
template <typename T>
TORCHBCD_TARGET_CLONES void factor_and_invert(int64_t d, T* u, T* pivots, T* inverse, int64_t stride) {
  T factor[kUnroll];
  for (int64_t begin = 0; begin < d; begin += kUnroll) {
    const int64_t count = std::min(kUnroll, d - begin);
    for (int64_t k = begin; k < begin + count; ++k) {
      T* row = u + k * d;
      for (int64_t r = begin; r < k; ++r) {
        factor[0] = u[r * d + k];
        subtract(row, u + r * d, d, factor, 1, k, d);
      }
      pivots[k] = row[k];
      const T scale = T(1) / std::sqrt(row[k]);
      TORCHBCD_VECTORIZE
      for (int64_t j = k; j < d; ++j) {
        row[j] *= scale;
      }
    }
    for (int64_t i = begin + count; i < d; ++i) {
      for (int64_t r = 0; r < count; ++r) {
        factor[r] = u[(begin + r) * d + i];
      }
      subtract(u + i * d, u + begin * d, d, factor, count, i, d);
    }
  }
  for (int64_t i = 0; i < d; ++i) {
    T* target = inverse + i * stride;
    std::fill(target, target + d, T(0));
    for (int64_t begin = 0; begin < i; begin += kUnroll) {
      const int64_t count = std::min(kUnroll, i - begin);
      for (int64_t r = 0; r < count; ++r) {
        factor[r] = u[(begin + r) * d + i];
      }
      subtract(target, inverse + begin * stride, stride, factor, count, 0, begin + count);
    }
    const T scale = T(1) / u[i * d + i];
    TORCHBCD_VECTORIZE
    for (int64_t j = 0; j < i; ++j) {
      target[j] *= scale;
    }
    target[i] = scale;
  }
}

}  // namespace

void small_cholesky(const at::Tensor& k, const at::Tensor& inverse, const at::Tensor& pivots) {
  const int64_t d = k.size(1);
  AT_DISPATCH_FLOATING_TYPES(k.scalar_type(), "small_cholesky", [&] {
    const scalar_t* const matrices = k.const_data_ptr<scalar_t>();
    scalar_t* const inverses = inverse.mutable_data_ptr<scalar_t>();
    scalar_t* const all_pivots = pivots.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, k.size(0), 1, [&](int64_t first, int64_t last) {
      std::vector<scalar_t> upper(d * d);
      for (int64_t b = first; b < last; ++b) {
        const scalar_t* lower = matrices + b * k.stride(0);
        for (int64_t i = 0; i < d; ++i) {
          for (int64_t j = 0; j <= i; ++j) {
            upper[j * d + i] = lower[i * k.stride(1) + j];
          }
        }
        factor_and_invert(d, upper.data(), all_pivots + b * pivots.stride(0),
                          inverses + b * inverse.stride(0), inverse.stride(1));
      }
    });
  });
}

}  // namespace torchbcd::cpu
