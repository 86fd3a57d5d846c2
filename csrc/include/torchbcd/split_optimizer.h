// What the optimizers share: the model, options by name, state, the observer.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/mlp.h"
#include "torchbcd/reports.h"

namespace torchbcd {

class MlpTrainer;

namespace detail {
struct NamedOption;
}

/// Lists of tensors by name; an entry may be undefined.
using Tensors = std::map<std::string, std::vector<at::Tensor>>;

/// An optimizer whose steps are sweeps over the layers of an MLP. The model's own parameters are W and b at
/// all times; a step that fails leaves them, and the split variables, at the last complete sweep.
///
/// Everything throws c10::TypeError or c10::ValueError, before it changes anything, where an argument does
/// not fit, and c10::LinAlgError, with layer and block, where a block has no solution in floating point.
class TORCHBCD_API SplitOptimizer {
 public:
  virtual ~SplitOptimizer();
  SplitOptimizer(SplitOptimizer&&) noexcept;
  SplitOptimizer& operator=(SplitOptimizer&&) noexcept;

  /// The layers; the tensors are the model's own.
  const Mlp& mlp() const { return mlp_; }
  /// The loss's name.
  const std::string& loss() const { return loss_; }
  /// Complete sweeps so far.
  int64_t sweeps() const;
  /// Whether a full batch is bound.
  bool bound() const;

  /// Has a function called after each block of every sweep.
  void set_observer(BlockObserver observer);

  /// Options by name, as a list of numbers: one for each layer (four where it is a regulariser: l1, l2, low,
  /// high; NaN stands for "not given"), or one alone where it is the optimizer's.
  std::vector<std::string> option_names();
  std::vector<double> option(const std::string& name);
  /// Sets an option between steps. A single number (four for a regulariser) is for all layers.
  void set_option(const std::string& name, c10::ArrayRef<double> values);

  /// The state, as copies and in the form that the Python optimizer's state_dict() has: penalties, and bound
  /// data with their split variables. It continues bit for bit.
  c10::IValue state_dict();
  /// Restores what state_dict() returned, here or in Python. Throws a ValueError where it does not fit.
  void load_state_dict(const c10::IValue& state);

  /// The part of the state that is tensors: bound data with their split variables. Copies.
  Tensors tensors() const;
  void load_tensors(const Tensors& tensors);

 protected:
  SplitOptimizer(Mlp mlp, std::string loss, double loss_weight, bool mean_loss,
                 std::unique_ptr<MlpTrainer> trainer);

  /// The options of a layer, and those of the whole, each with where its value is kept.
  virtual std::vector<detail::NamedOption> layer_options(size_t layer) = 0;
  virtual std::vector<detail::NamedOption> scheme_options();
  /// What state_dict() holds beside options and tensors.
  virtual std::vector<detail::NamedOption> counters();
  /// Tells the trainer the options, which anyone may have changed.
  virtual void apply_options();

  at::Tensor inputs(const at::Tensor& x) const;
  MlpTrainer& trainer() const { return *trainer_; }

 private:
  std::vector<detail::NamedOption> named(const std::string& name);

  Mlp mlp_;
  std::string loss_;
  double loss_weight_;
  bool mean_loss_;
  std::unique_ptr<MlpTrainer> trainer_;
};

}  // namespace torchbcd
