// What a fused pass states of itself, for the loops over it: a functor F<T, Alternative> has `using Pass =
// ...`, one of the three at the end of this file. T is the data's type, Alternative the activation or the
// loss chosen.
#pragma once

#include <cstdint>
#include <type_traits>
#include <variant>

#include "functors/activations.h"
#include "functors/losses.h"

namespace torchbcd::functors {

// --- which alternatives a pass is for; another one is refused before ---

struct EveryActivation {
  using Variant = AnyActivation;
  template <typename Activation>
  static constexpr bool takes = true;
};

struct InvertibleActivation {
  using Variant = AnyActivation;
  template <typename Activation>
  static constexpr bool takes = Activation::has_preimages;
};

struct EntryLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = !Loss::couples_row;
};

struct RowLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = Loss::couples_row;
};

struct DifferentiableRowLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = Loss::couples_row && Loss::differentiable;
};

struct LipschitzRowLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = Loss::couples_row && Loss::lipschitz_gradient;
};

struct DifferentiableEntryLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = !Loss::couples_row && Loss::differentiable;
};

struct LipschitzEntryLoss {
  using Variant = AnyLoss;
  template <typename Loss>
  static constexpr bool takes = !Loss::couples_row && Loss::lipschitz_gradient;
};

struct Nothing {};  // stands for activation and loss in a pass over neither

struct NoChoice {
  using Variant = std::variant<Nothing>;
  template <typename>
  static constexpr bool takes = true;
};

// --- what a loop knows beside its tensors ---

// Entry by entry; tensors broadcast and may be strided.
struct Entries {
  struct Layout {};
};

// Entry by entry over contiguous data, in chunks of a given length, whatever the number of threads; each
// chunk's sums go to `partial`, (chunks, sums), in float64. A chunk is kSumChunk entries, or a row.
struct Summed {
  struct Layout {
    int64_t chunk;
    double* partial;
  };
};
inline constexpr int64_t kSumChunk = 4096;

// Row by row: the functor gets the first entries of a row in each matrix.
struct Rows {
  struct Layout {
    int64_t classes;
    int64_t out_stride, target_stride, centre_stride;
  };
};

// --- what a pass is told beside its tensors ---

// A parameter that lies where the data lies, so that a GPU need not be waited for. The functor has it as its
// member `scale`, which a loop sets.
struct OnDevice {
  const double* value;
};

template <typename Kind_, typename Alternatives_, int inputs_, int outputs_, int sums_,
          typename... Parameters>
struct Pass {
  using Kind = Kind_;
  using Alternatives = Alternatives_;
  static constexpr int inputs = inputs_;
  static constexpr int outputs = outputs_;
  static constexpr int sums = sums_;
  static constexpr bool scale_on_device = (std::is_same_v<Parameters, OnDevice> || ...);
};

// out = f(in...), one number, or a Pair for two outputs.
template <typename Alternatives, int inputs, int outputs, typename... Parameters>
using EntryPass = Pass<Entries, Alternatives, inputs, outputs, 0, Parameters...>;

// f(in...) is an EntryAndSums: results for the outputs, and terms of sums over all entries.
template <typename Alternatives, int inputs, int outputs, int sums, typename... Parameters>
using SummedPass = Pass<Summed, Alternatives, inputs, outputs, sums, Parameters...>;

// f(first entries of the row in each of `tensors` matrices, layout) writes into the first of them.
template <typename Alternatives, int tensors, typename... Parameters>
using RowPass = Pass<Rows, Alternatives, tensors - 1, 1, 0, Parameters...>;

}  // namespace torchbcd::functors
