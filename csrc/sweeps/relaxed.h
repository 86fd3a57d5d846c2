// One sweep of RelaxedBCD: block coordinate descent in the order of Zeng et al., Algorithm 2, on one
// mini-batch, with blocks relaxed and penalties chosen so that hidden layers learn. docs/relaxed.md derives
// it and proves that no block raises
//
//   L = l(V_N; Y) + sum_l ( rho_l/2 |U_l - V_{l-1} W_l^T - 1 b_l^T|^2 + rho_l r_l(W_l) ),
//
// on V_l = map_l(U_l), V_0 = x, where a map is an activation with what may stand before and behind it: a
// LayerNorm, and a Dropout's mask, the sweep's own. Where rows have weights, every sum over rows is the
// weighted one, of the penalties too: a row of weight two is two rows.
#pragma once

#include "linalg/reductions.h"
#include "sweeps/layers.h"

namespace torchbcd {

struct RelaxedProblem : Problem<RelaxedBCDOptions> {
  std::vector<Normalization> normalizations;  // of each layer

  bool normalized(size_t l) const { return !normalizations[l].none(); }
  /// The maps between layers, at the scales and shifts of `maps`.
  std::vector<StateMap> state_maps(const std::vector<AffineMap>& maps,
                                   const std::vector<at::Tensor>& masks) const;
  /// Whether U_N is the target: the squared loss of a linear output.
  bool clamped() const;
};

/// Rows as they are given.
struct RelaxedData {
  at::Tensor x, y;
  RowWeights weights;
  double population = 0;     // what the rows of all processes count
  bool classes = true;       // whether y was given as class indices, rather than as numbers
  double target_square = 1;  // the mean square of a row of numbers

  /// Inputs, targets, encoded as the loss takes them, and weights (n, 1), undefined where all are one.
  static RelaxedData of(at::Tensor x, at::Tensor y, const at::Tensor& row_weight);

  /// Sums over rows that the rest follows from.
  struct Sums {
    double count = 0;
    double numbers = 0;  // processes whose targets are such
    double square = 0;   // of all targets, unless they are classes

    std::vector<double*> all() { return {&count, &numbers, &square}; }
  };
  /// Those of the rows here.
  Sums sums(bool are_classes, const OutputLoss& loss, bool several_processes) const;
  /// Sets what follows from those of all processes. Throws in the name of `where` where no row counts.
  void measure(const char* where, const OutputLoss& loss, const Sums& sums);
  Totals totals(const SumOverRanks& sum) const { return {sum, x.device(), weights}; }
};

/// U and V, a tensor (n, d_l) a layer; none where there are none.
struct RelaxedStates {
  std::vector<at::Tensor> u, v;

  bool empty() const { return u.empty(); }
  static RelaxedStates allocate(int64_t n, const std::vector<AffineMap>& maps, const RowStorage& storage = {},
                                const std::string& set = {});
};

/// The Gram matrix of the first layer's inputs, which are the same in every sweep over bound rows.
class InputGram {
 public:
  bool enabled = false;

  /// That of what is trained, on the inputs as they are or standardised: undefined where it has to be made.
  at::Tensor* of(const Trained& trained, bool standardized) {
    if (trained != trained_ || standardized != standardized_) {
      triangle_.reset();
    }
    trained_ = trained;
    standardized_ = standardized;
    return &triangle_;
  }

 private:
  at::Tensor triangle_;
  Trained trained_;
  bool standardized_ = false;
};

/// Rows with what a sweep keeps of them, a tensor (n, d_l) a layer.
struct RelaxedRows : RelaxedData {
  std::vector<at::Tensor> p;        // V_{l-1} W_l^T + 1 b_l^T with the weights that the sweep started from
  std::vector<at::Tensor> v;        // states
  std::vector<at::Tensor> slack;    // U - p, where U has moved
  std::vector<at::Tensor> change;   // of the states, by their block
  std::vector<at::Tensor> scratch;  // four, as large as the widest layer's
  std::vector<at::Tensor> masks;    // M of V = M sigma(U), entry by entry; undefined, or none: ones
  RelaxedStates saved;              // persistent: U and V at the last complete sweep
  RelaxedStates next_saved;         // and where those of the running one will be
  std::vector<double> penalties;    // those of the last sweep, or, where they persist, of all
  std::vector<double> spreads;      // the mean over rows of var a + eps of what a layer normalises; else 0
  InputGram input_gram;

  bool defined() const { return x.defined(); }
  int64_t rows() const { return x.size(0); }
  /// Views of the first n rows, without data.
  RelaxedRows narrow(int64_t n) const;
  static RelaxedRows allocate(int64_t n, const std::vector<AffineMap>& maps);
};

/// How far a sweep has come, for those who look on.
struct RelaxedProgress {
  size_t first_updated = 0;  // the layers from here on have their new weights
  size_t first_moved = 0;    // and those from here on their new U and V
};

/// The spreads of `rows` at their U, given by layer.
std::vector<double> spreads_of(const RelaxedProblem& problem, const RelaxedRows& rows,
                               const std::vector<at::Tensor>& u, const std::vector<StateMap>& state_maps);

/// rho of each layer: rho_N is the loss's weight where the output is clamped to the target, or output_penalty
/// times it; each one before it is a fraction of the next, by how much the weights between enlarge, and what
/// normalises U before they do.
std::vector<double> relaxed_penalties(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                                      const RelaxedRows& rows);

/// L at the variables u, v of `rows` and at `maps`, from them alone.
ObjectiveTerms objective_terms(const RelaxedProblem& problem, const std::vector<AffineMap>& maps,
                               const RelaxedRows& rows, const std::vector<at::Tensor>& u,
                               const std::vector<at::Tensor>& v);

/// Unlike the others it works in `rows` itself: rows.p and rows.v are those of `maps`.
struct RelaxedSweep : SweepOf<RelaxedProblem, RelaxedRows> {
  bool restored;     // whether rows.slack is that of persistent variables, rather than zero
  bool standardize;  // whether the first layer's step is measured on standardised inputs
  RelaxedProgress& progress;
};

RelaxedReport sweep_relaxed(const RelaxedSweep& sweep);

}  // namespace torchbcd
