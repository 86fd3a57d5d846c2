// The block of the slope a of sigma_a(u) = max(u, 0) + a min(u, 0), a PReLU's: one-dimensional least squares.
#pragma once

#include <ATen/core/Tensor.h>

#include "functors/activations.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// The sums that the block takes of its rows, in float64.
class SlopeSums {
 public:
  /// Rows of v and u, with the activation as it is.
  void add(const at::Tensor& v, const at::Tensor& u, const functors::AnyActivation& activation);
  /// Of the rows of all processes.
  void over_ranks(const Totals& totals) { totals.add_up({&cross_, &square_}); }

  /// The minimiser over a of penalty/2 |v - sigma_a(u)|^2 + proximal/2 (a - from)^2, with proximal > 0, in
  /// the precision of `from`, (1,); and `from` itself where rounding has left nothing to gain.
  at::Tensor minimiser(const at::Tensor& from, double penalty, double proximal) const;

 private:
  double cross_ = 0;   // <min(u, 0), v - sigma(u)>
  double square_ = 0;  // |min(u, 0)|^2
};

}  // namespace torchbcd
