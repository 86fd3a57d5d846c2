// The loss R of the last layer's outputs: one of all of them, or a sum of several, each of columns of its
// own,
//
//     R(V; Y) = sum_k w_k l_k(V_k; Y_k),    V = [V_1 ... V_K],
//
// so that what is asked of R is asked of each part by itself: the minimiser of R plus what is separable over
// entries has the parts' minimisers as columns, for the weights w_k times the weight of R; gradients and
// subdifferentials are those of the parts, times w_k; values add up.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "functors/losses.h"
#include "functors/regularizers.h"
#include "kernels/registry.h"
#include "torchbcd/export.h"

namespace torchbcd {

struct TORCHBCD_API OutputLoss {
  struct Part {
    functors::AnyLoss loss;
    ClassWeighting class_weighting;
    double weight = 1;
    int64_t begin = 0;
    int64_t outputs = -1;  // columns from `begin`; all there are where the loss is one

    /// The part's columns of a matrix.
    at::Tensor of(const at::Tensor& t) const { return outputs < 0 ? t : t.narrow(1, begin, outputs); }
  };

  std::vector<Part> parts;
  std::string text;  // the one of all that are read as the same

  /// Of a loss as users write it, "quantile(0.9)", or of several: "multi_output(10: cross_entropy, 1: 0.5 *
  /// quantile(0.9))", each behind the number of its outputs and, where it is not 1, before its loss, its
  /// weight. ValueError where the text is none of these.
  static OutputLoss of(std::string_view text);

  bool several() const { return parts.size() > 1; }
  /// Whether it is the squared loss of all outputs.
  bool squared() const;
  /// How errors call what belongs to a part: `name`, or "`name` of part 2".
  std::string named(const char* name, size_t part) const;

  /// Throws a ValueError where it has nothing to say on so many outputs.
  void check_outputs(const char* op, int64_t outputs) const;
  /// Throws a ValueError where targets (n, d) are beyond the ranges that losses state.
  void check_targets(const char* op, const char* name, const at::Tensor& targets) const;
  /// Targets with smoothing and weights of classes in them.
  at::Tensor class_weighted(const at::Tensor& targets) const;
};

namespace passes {

/// As of a single loss (passes.h).
void loss_update(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                 const OutputLoss& loss, const Regularizer& regularizer, double weight, double curvature,
                 const at::Tensor& out);
at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss);
/// The segments are one for each row and part: each has its t.
void loss_subdifferential(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss, double unit,
                          const at::Tensor& low, const at::Tensor& high, const at::Tensor& segment);

}  // namespace passes
}  // namespace torchbcd
