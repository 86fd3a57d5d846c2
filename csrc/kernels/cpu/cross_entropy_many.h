// The prox of a row of the cross-entropy with many classes on the CPU, its classes in vectors
// (functors/losses/cross_entropy_lanes.h), a block of them at a time. In most blocks of most rows no entry
// has much of the sum: those follow by a polynomial from e^x, which is taken once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "functors/losses/cross_entropy.h"
#include "functors/losses/cross_entropy_lanes.h"
#include "kernels/cpu/loops.h"

namespace torchbcd::cpu {

inline constexpr int kClassBlock = 64;

/// Sums side by side, over blocks.
template <typename C>
struct BlockSums {
  alignas(64) C lane[kClassBlock] = {};

  double total() const {
    double eighth[8] = {};
    for (int j = 0; j < kClassBlock; j += 8) {
      for (int i = 0; i < 8; ++i) {
        eighth[i] += static_cast<double>(lane[j + i]);
      }
    }
    return ((eighth[0] + eighth[1]) + (eighth[2] + eighth[3])) +
           ((eighth[4] + eighth[5]) + (eighth[6] + eighth[7]));
  }
};

struct ClassSums {
  BlockSums<double> w, off;
  BlockSums<float> fall, bend;
};

// The greatest and the second greatest of each lane.
template <typename T>
struct TwoGreatest {
  alignas(64) T first[kClassBlock], second[kClassBlock];
};

// A block of a row's problem: targets, which `per_target` makes t / gamma of, and the centre b.
template <typename T>
struct ClassBlock {
  const T *target, *centre;
  double per_target;

  TORCHBCD_HOST_DEVICE double x(int j) const {
    return static_cast<double>(centre[j]) + per_target * static_cast<double>(target[j]);
  }
};

// x of a block, in the data's type, sums of t / gamma and of what is a NaN where something is not finite, and
// its greatest x.
template <typename T>
TORCHBCD_TARGET_CLONES void set_out_block(const ClassBlock<T>& block, T* x, BlockSums<double>& total,
                                          BlockSums<float>& nothing, TwoGreatest<T>& greatest) {
  const T* target = block.target;
  const T* centre = block.centre;
  const double exact = block.per_target;
  const T per_target = static_cast<T>(exact);
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const T at = centre[j] + per_target * target[j];
    x[j] = at;
    total.lane[j] += exact * static_cast<double>(target[j]);
    nothing.lane[j] += 0 * static_cast<float>(at);
    const T first = greatest.first[j];
    const T less = at < first ? at : first;
    greatest.second[j] = less > greatest.second[j] ? less : greatest.second[j];
    greatest.first[j] = at > first ? at : first;
  }
}

// The greatest of a block of numbers >= 0: as integers floats keep their order.
inline TORCHBCD_TARGET_CLONES float greatest_of_block(const float* e) {
  int32_t greatest = 0;
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const int32_t bits = functors::bits_as<int32_t>(e[j]);
    greatest = bits > greatest ? bits : greatest;
  }
  return functors::bits_as<float>(greatest);
}

// e^(x - second) of a block, and the sums of it and of its square; the one entry beyond the second greatest
// is 2 and no part of the sums.
template <typename T>
TORCHBCD_TARGET_CLONES void exponentials(const T* x, T second, float* e, BlockSums<float>& sum,
                                         BlockSums<float>& squares) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const float below = static_cast<float>(x[j] - second);
    const float power = functors::cross_entropy_power(below);
    const float part = below > 0 ? 0.0f : power;
    e[j] = below > 0 ? 2.0f : power;
    sum.lane[j] += part;
    squares.lane[j] += part * part;
  }
}

// w and f of a block of small entries, y = scale e.
inline TORCHBCD_TARGET_CLONES void small_block(const float* e, float scale, float* w, float* f,
                                               ClassSums& sums) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const float now = functors::cross_entropy_small_entry(scale * e[j]);
    const float inverse = 1 / (1 + now);
    const float fall = now * inverse;
    w[j] = now;
    f[j] = fall;
    sums.w.lane[j] += static_cast<double>(now);
    sums.fall.lane[j] += fall;
    sums.bend.lane[j] += fall * (inverse * inverse);
  }
}

// The same in float64: v and f.
template <typename T>
TORCHBCD_TARGET_CLONES void fine_small_block(const ClassBlock<T>& block, double shift, const float* e,
                                             float scale, double* v, float* f, ClassSums& sums) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const float nearby = functors::cross_entropy_small_entry(scale * e[j]);
    const float inverse = 1 / (1 + nearby);
    const double x = block.x(j);
    const double w = functors::cross_entropy_refined(x - shift, nearby, inverse);
    const float fall = nearby * inverse;
    v[j] = x - w;
    f[j] = fall;
    sums.w.lane[j] += w;
    sums.fall.lane[j] += fall;
    sums.bend.lane[j] += fall * (inverse * inverse);
  }
}

// A block of any entries in float, for its sums alone.
template <typename T>
TORCHBCD_TARGET_CLONES void rough_block(const T* x, double shift, ClassSums& sums) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const float now = functors::cross_entropy_entry(static_cast<float>(x[j] - shift));
    const float inverse = 1 / (1 + now);
    const float fall = now * inverse;
    sums.w.lane[j] += static_cast<double>(now);
    sums.fall.lane[j] += fall;
    sums.bend.lane[j] += fall * (inverse * inverse);
  }
}

// A block of any entries in float64: v and f.
template <typename T>
TORCHBCD_TARGET_CLONES void fine_block(const ClassBlock<T>& block, double shift, double* v, float* f,
                                       ClassSums& sums) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const double x = block.x(j);
    const float nearby = functors::cross_entropy_entry(static_cast<float>(x - shift));
    const functors::CrossEntropyEntry entry(x, shift, nearby);
    const float fall = static_cast<float>(entry.fall);
    const float rest = 1 - fall;
    v[j] = entry.v;
    f[j] = fall;
    sums.w.lane[j] += entry.w;
    sums.fall.lane[j] += fall;
    sums.bend.lane[j] += fall * (rest * rest);
    sums.off.lane[j] += entry.off;
  }
}

// The states at the end of a step of length d: of a block with w, and of one with v.
inline TORCHBCD_TARGET_CLONES void small_states(const float* x, const float* w, const float* f, float d,
                                                float* out) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    const float rest = 1 - f[j];
    out[j] = x[j] - (w[j] - f[j] * d * (1 - 0.5f * d * (rest * rest)));
  }
}
template <typename T>
TORCHBCD_TARGET_CLONES void fine_states(const double* v, const float* f, float d, T* out) {
  TORCHBCD_VECTORIZE
  for (int j = 0; j < kClassBlock; ++j) {
    out[j] = static_cast<T>(functors::cross_entropy_state(v[j], f[j], d));
  }
}

/// Solves rows of data of type T with one number of classes.
template <typename T>
class ManyClassesSolver {
 public:
  explicit ManyClassesSolver(int64_t classes)
      : classes_(classes),
        blocks_((classes + kClassBlock - 1) / kClassBlock),
        target_(padded()),
        centre_(padded(), kNothing),
        x_(padded()),
        out_(padded()),
        v_(padded()),
        e_(padded()),
        w_(padded()),
        f_(padded()),
        most_(blocks_),
        kind_(blocks_) {}

  /// Whether the row was solved; else it is as before.
  bool solve(const functors::CrossEntropyRow<T>& row) {
    if (!row.regularizer.none() || !set_out(row)) {
      return false;
    }
    for (int k = 0; k < 8 && expected_ > kFar; ++k) {
      const double step = evaluate</*fine=*/false>();
      shift_ += step;
      expected_ = std::fabs(step) > 1e-2 ? functors::kInfinity : 0;
    }
    for (int k = 0; k < 8; ++k) {
      const double step = evaluate</*fine=*/true>();
      if (std::fabs(step) <= kEnough && off_ <= 1e-3) {
        write(row, step);
        return true;
      }
      shift_ += step;
    }
    return false;
  }

 private:
  // Of its entries' sizes: by the polynomial, by that and float64, by the iteration.
  enum Kind : char { kSmall, kMedium, kLarge };

  static constexpr bool kFloat = std::is_same_v<T, float>;
  // A last step of h: its third power is nothing to the states.
  static constexpr double kEnough = kFloat ? 1e-3 : 2e-6;
  // Where the start is this far off, steps in float come first; as dear as the other ones where data are
  // float and entries small.
  static constexpr double kFar = kFloat ? 0.03 : kEnough;
  // Entries beyond the classes, whole blocks of them, are of an x that is nothing to a sum.
  static constexpr T kNothing = -1e30f;

  int64_t padded() const { return blocks_ * kClassBlock; }

  void gather(const T* from, int64_t stride, std::vector<T>& to) const {
    if (stride == 1) {
      std::copy(from, from + classes_, to.begin());
    } else {
      for (int64_t c = 0; c < classes_; ++c) {
        to[c] = from[c * stride];
      }
    }
  }

  ClassBlock<T> block(int64_t k) const {
    return {target_.data() + k * kClassBlock, centre_.data() + k * kClassBlock, per_target_};
  }

  /// x, its exponentials, kappa and h to start from; false where the row is not one for these loops.
  bool set_out(const functors::CrossEntropyRow<T>& row) {
    gather(row.target, row.target_stride, target_);
    gather(row.centre, row.centre_stride, centre_);
    per_target_ = row.weight / row.gamma;
    BlockSums<double> total;
    BlockSums<float> nothing;
    TwoGreatest<T> greatest;
    std::fill_n(greatest.first, kClassBlock, kLeast);
    std::fill_n(greatest.second, kClassBlock, kLeast);
    for (int64_t k = 0; k < blocks_; ++k) {
      set_out_block(block(k), x_.data() + k * kClassBlock, total, nothing, greatest);
    }
    T first = kLeast, second = kLeast;
    for (int j = 0; j < kClassBlock; ++j) {
      const T lane = greatest.first[j];
      second = std::max({second, greatest.second[j], std::min(lane, first)});
      first = std::max(first, lane);
    }
    kappa_ = total.total();
    if (!(nothing.total() == 0 && functors::cross_entropy_in_range(kappa_) && second > -1e29f &&
          first < 1e29f)) {
      return false;
    }
    second_ = second;
    BlockSums<float> sums, squares;
    top_ = -1;
    for (int64_t k = 0; k < blocks_; ++k) {
      float* e = e_.data() + k * kClassBlock;
      exponentials(x_.data() + k * kClassBlock, second, e, sums, squares);
      most_[k] = greatest_of_block(e);
      if (most_[k] > 1) {
        set_apart(std::find(e, e + kClassBlock, 2.0f) - e_.data());
        most_[k] = greatest_of_block(e);
      }
    }
    const double twice = top_ < 0 ? 1 : 0;  // the greatest is among those summed
    const double sum = sums.total() - twice;
    const double square = squares.total() - twice;
    shift_ = functors::cross_entropy_start(first, second, static_cast<float>(sum), static_cast<float>(square),
                                           kappa_);
    // How far off, where entries are small: what y^3 adds to w, in a sum whose terms are not alike.
    const double greatest_y = std::exp(std::min(second_ - shift_, 80.0));
    expected_ = 1.5 * greatest_y * greatest_y * square / sum;
    return true;
  }

  /// The entry with the greatest x, no part of its block.
  void set_apart(int64_t c) {
    top_ = c;
    top_x_ = block(0).x(c);
    target_[c] = 0;
    centre_[c] = kNothing;
    x_[c] = kNothing;
    e_[c] = 0;
  }

  /// What the blocks are at h. Entries with more of the sum than float is exact enough for want float64.
  void sort_blocks() {
    constexpr float kLeastLarge = 1;
    scale_ = static_cast<float>(std::exp(std::clamp(second_ - shift_, -46.0, 80.0)));
    const float enough = kFloat ? static_cast<float>(kappa_ / 64) : 0;
    for (int64_t k = 0; k < blocks_; ++k) {
      // e of what is far below is not as small as it should be: no part of a sum if the scale is moderate.
      const float most = scale_ < 16 ? scale_ * most_[k] : kLeastLarge;
      kind_[k] = most > functors::kSmallEntry ? kLarge : (most > enough ? kMedium : kSmall);
    }
  }

  /// The entries at h; returns the next step of it.
  template <bool fine>
  double evaluate() {
    ClassSums sums;
    sort_blocks();
    for (int64_t k = 0; k < blocks_; ++k) {
      const int64_t at = k * kClassBlock;
      if (kind_[k] == kLarge) {
        if constexpr (fine) {
          fine_block(block(k), shift_, v_.data() + at, f_.data() + at, sums);
        } else {
          rough_block(x_.data() + at, shift_, sums);
        }
      } else if (kind_[k] == kMedium && fine) {
        fine_small_block(block(k), shift_, e_.data() + at, scale_, v_.data() + at, f_.data() + at, sums);
      } else {
        small_block(e_.data() + at, scale_, w_.data() + at, f_.data() + at, sums);
      }
    }
    off_ = sums.off.total();
    functors::CrossEntropySums total = {sums.w.total(), sums.fall.total(), sums.bend.total()};
    if (top_ >= 0) {
      const float nearby = functors::cross_entropy_entry(static_cast<float>(top_x_ - shift_));
      const functors::CrossEntropyEntry entry(top_x_, shift_, nearby);
      top_v_ = entry.v;
      top_fall_ = entry.fall;
      off_ += entry.off;
      total.w += entry.w;
      total.fall += entry.fall;
      total.bend += entry.fall * (1 - entry.fall) * (1 - entry.fall);
    }
    return functors::cross_entropy_step(total, kappa_);
  }

  /// The states at h and a step from there.
  void write(const functors::CrossEntropyRow<T>& row, double step) {
    const float d = static_cast<float>(step);
    for (int64_t k = 0; k < blocks_; ++k) {
      const int64_t at = k * kClassBlock;
      T* out = out_.data() + at;
      if constexpr (kFloat) {
        if (kind_[k] == kSmall) {
          small_states(x_.data() + at, w_.data() + at, f_.data() + at, d, out);
          continue;
        }
      }
      fine_states(v_.data() + at, f_.data() + at, d, out);
    }
    if (top_ >= 0) {
      out_[top_] = static_cast<T>(functors::cross_entropy_state(top_v_, top_fall_, step));
    }
    for (int64_t c = 0; c < classes_; ++c) {
      row.out[c * row.out_stride] = out_[c];
    }
  }

  static constexpr T kLeast = -3e38f;

  int64_t classes_, blocks_;
  int64_t top_ = -1;
  double top_x_ = 0, top_v_ = 0, top_fall_ = 0;
  double per_target_ = 0, kappa_ = 0, shift_ = 0, off_ = 0, second_ = 0, expected_ = 0;
  float scale_ = 0;
  std::vector<T> target_, centre_, x_, out_;
  std::vector<double> v_;
  std::vector<float> e_, w_, f_, most_;
  std::vector<Kind> kind_;
};

}  // namespace torchbcd::cpu
