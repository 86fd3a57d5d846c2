// What a least-squares fit asks of its rows, summed over any number of batches: weighted second moments about
// the means, in float64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace torchbcd {

/// Of rows f (d features), y (c targets) and w >= 0 (a weight), with means f0 and y0 weighted by w, or zero
/// where `centred` is false:
///
///     gram = sum w (f - f0)(f - f0)^T      cross = sum w (y - y0)(f - f0)^T
///
/// Batches are put together by the update of Chan, Golub and LeVeque (1983), which loses no digits to the
/// means, however far from zero they lie. Only sums are kept: memory does not grow with the rows.
struct Moments {
  bool centred = true;
  int64_t rows = 0;
  double weight = 0;       // sum of w
  at::Tensor mean_f;       // (d,)
  at::Tensor mean_y;       // (c,)
  at::Tensor gram, cross;  // (d, d), both triangles, and (c, d)
  at::Tensor peak;  // (d,): the largest that the gram's diagonal has been, which its rounding is relative to

  /// Of no rows.
  static Moments none(int64_t features, int64_t outputs, bool centred, const at::Device& device);
  /// Of rows: f (n, d) and y (n, c), or class indices (n,), which stand for one-hot rows; w (n,), or
  /// undefined where all are 1. Any floating-point types; converted a few thousand rows at a time.
  static Moments of(const at::Tensor& f, const at::Tensor& y, const at::Tensor& w, int64_t outputs,
                    bool centred);

  int64_t features() const { return gram.size(0); }
  int64_t outputs() const { return cross.size(0); }
  /// Targets that no row has had so far, as zeros.
  void grow(int64_t outputs);
  /// Those of both. Uses up `other`.
  void add(Moments other);
  /// Those of the rows that `other` is not of: `add` undone, to the rounding of what was summed. Nothing has
  /// changed where it returns false: no such rows can be among these. Uses up `other`.
  [[nodiscard]] bool subtract(Moments other);
};

}  // namespace torchbcd
