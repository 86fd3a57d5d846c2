// The two least-squares blocks of Algorithm 2, in residual form.
//
// Both are one ridge problem, min over X of 1/2 |T - M X|^2 + mu/2 |X|^2, solved by a Cholesky factor on
// its smaller side: X = (M^T M + mu I)^{-1} M^T T, or X = M^T (M M^T + mu I)^{-1} T (matrix inversion
// lemma), where the second also yields the new residual, T - M X = mu (M M^T + mu I)^{-1} T. A squared norm
// as regulariser keeps that form; any other one is solved for on the Gram matrix. The second form cancels
// where rows of M depend on each other and mu is small: float32 then takes the first, or does it in float64.
#pragma once

#include "blocks/regularized_quadratic.h"
#include "blocks/weight_quadratic.h"
#include "linalg/affine_map.h"
#include "linalg/spd.h"
#include "torchbcd/regularizers.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// The V block of a hidden layer, argmin over V of
/// gamma/2 |V - S|^2 + rho/2 |U - V W^T - 1 b^T|^2 + s(V), for one (W, b) and any number of row chunks, but
/// all rows at once where s is one's own.
class HiddenStateBlock {
 public:
  /// `rows` is how many rows will be solved for in all: it decides which side is the cheaper.
  HiddenStateBlock(AffineMap map, double gamma, double rho, const WeightRegularizer& regularizer,
                   int64_t rows, const char* where);

  /// Whether solve_ wants to know the previous states: only an iterative solution starts from them.
  bool iterative() const { return problem_.has_value(); }

  /// On entry v holds S; on exit v holds V and residual_out holds U - V W^T - 1 b^T. Where iterative(),
  /// V is no worse than `previous`.
  void solve_(const at::Tensor& v, const at::Tensor& previous, const at::Tensor& u,
              const at::Tensor& residual_out) const;

 private:
  AffineMap map_;
  double shrink_;     // gamma / (gamma + l2): what a squared norm does to S
  double ratio_;      // (gamma + l2) / rho
  bool output_side_;  // factor W W^T + ratio I (d' x d') instead of W^T W + ratio I (d x d)
  SpdFactor factor_;
  std::optional<WeightQuadratic> problem_;  // where it is iterative
};

struct WeightPenalties {
  double rho = 1;
  double alpha = 1;
  double alpha_bias = alpha;
  WeightRegularizer regularizer = {};  // of W
  bool regularize_bias = false;        // and of b
  double relaxation = 1;               // with a regulariser that is not a squared norm

  bool operator==(const WeightPenalties&) const = default;
};

/// What a W block is fitted on.
struct WeightInputs {
  at::Tensor v;  // (n, d), of the rows here
  bool bias = true;
  SumOverRanks sum_over_ranks = {};  // where other processes have rows too
  RowWeights weights = {};
  at::Tensor* kept_gram = nullptr;  // as GramSystem has it
};

/// What it takes of them, [V 1]^T [V 1] and R^T [V 1]: summed over the processes that have rows, each in a
/// message that is on its way while other work goes on.
class WeightSums {
 public:
  /// Begins the first one, unless it is kept.
  explicit WeightSums(const WeightInputs& inputs);

  /// Begins the second one, for residuals (n, d'); anew, where it was begun for others.
  void start_cross(const at::Tensor& residual);

  bool has_cross() const { return cross_.defined(); }

  /// A system of the first one, without ridges; once, and no longer than this lives.
  GramSystem gram();
  /// The second one, (d', d + 1) or (d', d), once.
  at::Tensor cross();

 private:
  GramSystem system_;
  std::optional<GramSum> gram_;
  at::Tensor cross_;
  PendingSum pending_;
};

/// The W block, argmin over (W', b') of
/// rho/2 |U - V W'^T - 1 b'^T|^2 + alpha/2 |W' - W|^2 + alpha_bias/2 |b' - b|^2 + r(W'), and r(b') where
/// asked for. With inputs of no columns it is that of b alone. A relaxation nu in (0, 1] divides the
/// quadratic part's Hessian in W', about (W, b): without r, a step of nu times the minimiser's. A row's
/// residual counts by its weight.
class WeightBlock {
 public:
  /// `outputs` is d'. The primal factor (d x d) serves every sweep over the same inputs; `always_primal` asks
  /// for it so that the caller can keep this object. Where the rows lie in several processes it is primal
  /// too, and what goes between them are its two matrices, of size d (d + d'): every process then finds the
  /// same W. `sums` are those matrices where they have been begun, of the residual that solve is given, which
  /// is then called once, while they live.
  WeightBlock(const WeightInputs& inputs, int64_t outputs, const WeightPenalties& penalties,
              bool always_primal, const char* where, WeightSums* sums = nullptr);

  /// Sets `next` from `previous` and residual = u - v W^T - 1 b^T, which is overwritten, unless its product
  /// has been begun in sums.
  void solve(const at::Tensor& residual, const AffineMap& previous, const AffineMap& next) const;

 private:
  at::Tensor weighted(const at::Tensor& residual) const;
  at::Tensor total_cross_product(const at::Tensor& residual) const;

  at::Tensor v_;        // times the weights' roots, in float64 where the dual form would cancel
  RowWeights weights_;  // whose roots are what the column of ones is then
  bool bias_;
  WeightPenalties penalties_;
  bool primal_;
  WeightSums* sums_;
  SumOverRanks sum_over_ranks_;
  double bias_l2_;    // the regulariser's squared norm, where it is of b too
  double bias_gain_;  // (alpha + l2) / (alpha_bias + bias_l2): how much more W is bound than b
  SpdFactor factor_;
  WeightQuadratic problem_;
};

/// That block, once, for a `residual` that is known already, which is overwritten.
void solve_weight_block(const WeightInputs& inputs, const WeightPenalties& penalties, const char* where,
                        const at::Tensor& residual, const AffineMap& previous, const AffineMap& next);

}  // namespace torchbcd
