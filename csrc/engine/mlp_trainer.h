// What every trainer of an MLP has: the model's own parameters and their values at the last complete sweep,
// the checks of data, the observer. Knows nothing of Python, and nothing of any one algorithm.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/network.h"
#include "torchbcd/export.h"

namespace torchbcd {

/// The trainer's state by name, every entry a list of tensors: what a checkpoint holds.
using TrainerState = std::map<std::string, std::vector<at::Tensor>>;

/// A list of `count` tensors of a state. Throws where it is not there or not as long.
const std::vector<at::Tensor>& state_entry(const char* name, const TrainerState& state, const char* key,
                                           size_t count);

/// Copies a list of tensors of a state into `targets`. Throws where one does not fit.
void load_entry(const char* name, const TrainerState& state, const char* key,
                const std::vector<at::Tensor>& targets);
/// The same for weights and biases.
void load_maps(const char* name, const TrainerState& state, const char* weight, const char* bias,
               const std::vector<AffineMap>& maps);

/// Whether every entry is finite; undefined tensors count as such. A GPU is waited for once.
bool all_finite(const at::Tensor& t);
bool all_finite(const std::vector<at::Tensor>& tensors);
bool all_finite(const std::vector<AffineMap>& maps);

std::vector<AffineMap> allocate_like(const std::vector<AffineMap>& maps);
void copy_maps(const std::vector<AffineMap>& from, const std::vector<AffineMap>& to);
std::vector<at::Tensor> clone_all(const std::vector<at::Tensor>& tensors);

/// Copies of weights and biases into a state, under these keys.
void save_maps(const std::vector<AffineMap>& maps, const char* weight, const char* bias, TrainerState& state);

/// Throws a ValueError unless the regulariser's numbers make sense; `what` names it.
void check_regularizer(const char* name, const char* what, size_t layer,
                       const functors::Regularizer& regularizer);

class TORCHBCD_API MlpTrainer {
 public:
  virtual ~MlpTrainer() = default;

  /// Whether a full batch is bound.
  virtual bool bound() const = 0;
  /// Penalties that the run has set, bound data and split variables, as copies; and their return.
  virtual TrainerState state() const = 0;
  virtual void load_state(const TrainerState& state) = 0;

  /// The loss term is `weight` times the sum over rows, divided by the number of rows where `mean` is set.
  virtual void set_loss_weight(double weight, bool mean);
  void set_observer(BlockObserver observer) { observer_ = std::move(observer); }

  /// The model's own parameters.
  const std::vector<AffineMap>& parameters() const { return parameters_; }
  int64_t sweeps() const { return sweeps_; }
  /// Changes whenever the point does: with every step, bind and load_state.
  int64_t revision() const { return revision_; }

 protected:
  /// `name` is how errors call the trainer. `weights` and `biases` (undefined where a layer has none) are the
  /// model's own parameters; every complete sweep is written to them.
  MlpTrainer(const char* name, const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
             const std::vector<functors::Activation>& activations, const functors::Loss& loss);

  size_t depth() const { return parameters_.size(); }

  at::Tensor checked_inputs(const char* argument, const at::Tensor& x) const;
  at::Tensor checked_targets(const char* argument, const at::Tensor& y, int64_t rows) const;
  at::Tensor checked_row_weight(const at::Tensor& sample_weight, int64_t rows) const;
  /// The row weights of a state over so many rows.
  at::Tensor loaded_row_weight(const TrainerState& state, int64_t rows) const;
  void check_layer(size_t layer) const;
  void check_positive(const char* argument, double value) const;
  void check_positive(const char* argument, size_t layer, double value) const;

  /// Takes over parameters that somebody else has changed since the last sweep (load_state_dict, an in-place
  /// edit), and returns whether there were any. Throws where they are not finite.
  bool note_outside_changes();
  /// Throws, naming layer and block, unless the weights in `next_` are finite.
  void check_next_weights() const;
  /// Makes `next_` the point: the end of a complete sweep.
  void commit();

  const char* name_;
  functors::Loss loss_;
  LossWeight loss_weight_;
  std::vector<AffineMap> parameters_;  // the model's own tensors
  std::vector<AffineMap> committed_;   // their values at the last complete sweep
  std::vector<AffineMap> next_;        // where the running sweep writes
  BlockObserver observer_;
  int64_t sweeps_ = 0;
  int64_t revision_ = 0;

 private:
  at::Tensor encoded_classes(const char* argument, const at::Tensor& y, int64_t rows) const;
};

}  // namespace torchbcd
