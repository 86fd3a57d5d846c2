// The two least-squares blocks of Algorithm 2, in residual form.
//
// Both are one ridge problem, min over X of 1/2 |T - M X|^2 + mu/2 |X|^2, solved by a Cholesky
// factor on its smaller side: X = (M^T M + mu I)^{-1} M^T T, or X = M^T (M M^T + mu I)^{-1} T
// (matrix inversion lemma), where the second also yields the new residual, T - M X = mu (M M^T + mu
// I)^{-1} T.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/spd.h"

namespace torchbcd {

/// A layer's affine map, v W^T + 1 b^T; `bias` is undefined for a layer without one.
struct AffineMap {
  at::Tensor weight;  // (d', d)
  at::Tensor bias;    // (d',)
};

/// residual_out = u - v W^T - 1 b^T
void affine_residual_out(const at::Tensor& u, const at::Tensor& v, const AffineMap& map,
                         const at::Tensor& residual_out);

/// The V block of a hidden layer, argmin over V of gamma/2 |V - S|^2 + rho/2 |U - V W^T - 1 b^T|^2,
/// for one (W, b) and any number of row chunks.
class StateBlock {
 public:
  /// `rows` is how many rows will be solved for in all: it decides which side is the cheaper.
  StateBlock(AffineMap map, double gamma, double rho, int64_t rows, const char* where);

  /// On entry v holds S; on exit v holds V and residual_out holds U - V W^T - 1 b^T.
  void solve_(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual_out) const;

 private:
  AffineMap map_;
  double ratio_;      // gamma / rho
  bool output_side_;  // factor W W^T + ratio I (d' x d') instead of W^T W + ratio I (d x d)
  SpdFactor factor_;
};

/// The W block, argmin over (W', b') of rho/2 |U - V W'^T - 1 b'^T|^2 + alpha/2 |[W' b'] - [W
/// b]|^2.
class WeightBlock {
 public:
  /// `v` (n, d) are the layer's inputs; `outputs` is d'. The primal factor (d x d) serves every
  /// sweep over the same v; `always_primal` asks for it so that the caller can keep this object.
  WeightBlock(at::Tensor v, int64_t outputs, bool bias, double rho, double alpha, bool always_primal,
              const char* where);

  /// Sets `next` from `previous` and residual = u - v W^T - 1 b^T, which is overwritten.
  void solve(const at::Tensor& residual, const AffineMap& previous, const AffineMap& next) const;

 private:
  at::Tensor v_;
  bool bias_;
  bool primal_;
  SpdFactor factor_;
};

}  // namespace torchbcd
