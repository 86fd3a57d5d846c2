// The model that an optimizer trains: its layers, its own parameters and their values at the last complete
// sweep, and the checks of what data it is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "functors/activations.h"
#include "kernels/output_loss.h"
#include "linalg/affine_map.h"
#include "linalg/reductions.h"
#include "linalg/row_storage.h"
#include "optimizers/call.h"
#include "torchbcd/mlp.h"

namespace torchbcd {

struct TrainedMlp {
  /// `name` is how errors call the optimizer. Throws where tensors, activations or loss do not fit.
  TrainedMlp(const char* name, Mlp mlp, const std::string& loss);

  const char* name;
  Mlp mlp;
  OutputLoss loss;
  std::vector<functors::AnyActivation> activations;
  std::vector<AffineMap> parameters;  // the model's own tensors, whatever storage they have by now
  std::vector<Trained> trained;       // those that require gradients, where the model says so
  std::vector<AffineMap> committed;   // the parameters' values at the last complete sweep
  std::vector<AffineMap> next;        // where the running sweep writes
  bool unchecked = true;              // whether nobody has seen yet if the committed ones are finite
  SumOverRanks sum_over_ranks;        // where other processes have rows too, so that this one may have none
  int64_t bytes_sent = 0;             // to them, since the last call of `begin`
  int64_t rank = -1;                  // of this process among them, where it is known
  bool weights_changed = false;       // by somebody else, since the ranks last made sure of them
  std::function<Mlp()> reread;        // where there is a model to look at, what it is now
  Caller caller;

  size_t depth() const { return parameters.size(); }

  /// What a call of the optimizer begins with.
  [[nodiscard]] Call call(Call::Kind kind) { return {caller, name, kind}; }
  /// Whether this is a look from within a sweep, whose snapshot stands.
  bool within_sweep() const { return caller.stepping && caller.depth > 1; }

  /// Throws, naming what, where the model has a Residual.
  void refuse_skips(const char* what) const;

  /// Of each layer, and whether there is any.
  std::vector<Normalization> normalizations() const;
  bool normalizes() const;
  /// Whether an activation has a slope that is trained.
  bool has_slopes() const { return !mlp.slopes.empty(); }

  /// Whether states are dropped: a Dropout is in train mode.
  bool drops() const;

  /// Other tensors in the place of the model's own, and what its Dropouts do by now, one number a layer or
  /// none.
  void follow(const std::vector<AffineMap>& now, const std::vector<double>& dropout);
  /// Takes over parameters that somebody else has changed or frozen since the last sweep (load_state_dict, an
  /// in-place edit, a new storage), and returns whether there were any. Throws, changing nothing, where they
  /// are not finite, share memory, are all frozen, or are no longer of the kind and shape that the optimizer
  /// was made for.
  bool sync();
  /// Throws, naming layer and block, unless the weights in `next` are finite.
  void check_next() const;
  /// Makes `next` the point: the end of a complete sweep. Leaves the point before it in `next`. Where it
  /// fails, the parameters are those of the point before.
  void commit();

  /// A copy in `storage`, checked, contiguous, of what reaches the first layer: modules before the layers
  /// have run, and it is flattened where the model does so. `argument` is how errors call it. Nothing but the
  /// copy is as large as it.
  at::Tensor inputs(const char* argument, const at::Tensor& x, const RowStorage& storage = {}) const;
  /// The same of what reaches the first layer itself, such as a state holds.
  at::Tensor layer_inputs(const char* argument, const at::Tensor& x, const RowStorage& storage = {}) const;
  /// Rows of all processes.
  int64_t rows_of_all_ranks(int64_t rows) const;
  /// A copy, checked; class indices encoded as the loss takes them, with its smoothing and weights of classes
  /// in it.
  at::Tensor targets(const char* argument, const at::Tensor& y, int64_t rows,
                     const RowStorage& storage = {}) const;
  /// The same of what a state holds, which has a loss's smoothing and weights of classes in it already.
  at::Tensor encoded_targets(const char* argument, const at::Tensor& y, int64_t rows) const;
  /// Targets (n, d_N) of what each part of a loss of several takes, classes encoded. Of values and classes
  /// `targets` makes sure.
  at::Tensor joined_targets(const char* argument, const std::vector<at::Tensor>& y) const;
  /// Copies, checked, (n, d_l) for every layer, or every hidden one, of values of a variable; or none where
  /// none are given.
  std::vector<at::Tensor> states(const char* argument, const std::vector<at::Tensor>& given, int64_t rows,
                                 bool with_last = true, const RowStorage& storage = {}) const;
  /// A copy, checked, (n, 1); or (1, 1) where all weigh one.
  at::Tensor row_weight(const at::Tensor& sample_weight, int64_t rows, const RowStorage& storage = {}) const;

 private:
  using Rows = std::function<at::Tensor(int64_t begin, int64_t size)>;

  at::Tensor kept(const char* argument, const std::string& file, at::IntArrayRef sizes, int64_t part,
                  const Rows& rows, const RowStorage& storage) const;
  at::Tensor kept_inputs(const char* argument, int64_t n, const at::Tensor& like, int64_t part,
                         const Rows& rows, const RowStorage& storage) const;
  at::Tensor kept_targets(const char* argument, const at::Tensor& y, int64_t rows, bool weighted,
                          const RowStorage& storage) const;
  at::Tensor features(const char* argument, const at::Tensor& rows) const;
  std::vector<Trained> now_trained() const;
};

}  // namespace torchbcd
