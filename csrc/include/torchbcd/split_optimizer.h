// What the optimizers share: the model, options by name, state, the observer.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/mlp.h"
#include "torchbcd/reports.h"
#include "torchbcd/scratch_dir.h"

namespace torchbcd {

class OptionTable;
class ScratchRun;
class StateReader;
struct TrainedMlp;

/// Lists of tensors by name; an entry may be undefined.
using Tensors = std::map<std::string, std::vector<at::Tensor>>;

/// What an optimizer keeps beside the model's parameters and its options: bound data with their split
/// variables, and counters.
struct SavedState {
  Tensors tensors;
  std::map<std::string, std::vector<double>> numbers;
};

/// A complete sweep: what a report says that it is of.
struct SweepId {
  int64_t sweep = 0;      // counted from 1 over the optimizer's life
  int64_t revision = -1;  // that it led to
};

/// An optimizer whose steps are sweeps over the layers of an MLP. The model's own parameters are W and b at
/// all times; a step that fails leaves them, and the split variables, at the last complete sweep.
///
/// Every call begins with one look at the parameters and the options as they are then. Everything throws
/// c10::TypeError or c10::ValueError, before it changes anything, where an option or an argument does not
/// fit, and c10::LinAlgError, with layer and block, where a block has no solution in floating point. Layers
/// count from 1 in errors, reports and observers.
///
/// A parameter that requires no gradient is frozen: no sweep moves it, and its part of the objective stays.
/// Autocast, inference mode and the precision set for matrix products do not reach into a call. While one
/// runs, another thread's throws a c10::Error, and so does one of the observer's that would change anything.
class TORCHBCD_API SplitOptimizer {
 public:
  virtual ~SplitOptimizer();
  SplitOptimizer(SplitOptimizer&&) noexcept;
  SplitOptimizer& operator=(SplitOptimizer&&) noexcept;

  /// The layers; the tensors are the model's own.
  const Mlp& mlp() const;
  /// The loss's name, with its numbers where it was given any.
  const std::string& loss() const;
  /// Complete sweeps so far.
  int64_t sweeps() const { return sweeps_; }
  /// Changes whenever the point does: with every step, bind and load_state_dict.
  int64_t revision() const { return revision_; }
  /// Whether a full batch is bound.
  virtual bool bound() const = 0;

  /// The rows given to bind and step from now on are some of the data: other processes, whose models have the
  /// same parameters, have the others and take the same steps at the same time. `sum` adds a tensor up over
  /// all of them in place, to the same bits in each, such as c10d's all-reduce; where there is
  /// `wait`, it may return earlier, and wait(t) does not before the sum is there: some sums are under way
  /// while a sweep goes on. Only matrices of the layers' sizes and a few numbers go between the processes
  /// (Zeng et al., Appendix F). BCD with splitting 2 throws a ValueError where there are activations, as does
  /// RelaxedBCD with row_blocks. Unbinds.
  void set_sum_over_ranks(std::function<void(const at::Tensor&)> sum,
                          std::function<void(const at::Tensor&)> wait = {});
  /// The same for the processes of a group of torch.distributed, by its name. The model's parameters are
  /// first set to those of the group's rank 0. `rank`, this process's, is how errors in the others call it.
  void set_process_group(const std::string& name, int64_t rank = -1);
  /// In place of a bind or a step that this process cannot begin, for a reason of its own: throws it as a
  /// ValueError, in every process, none of which then waits for this one.
  void refuse(const std::string& reason);
  /// Whether other processes have rows too.
  bool has_other_ranks() const;
  /// The bytes of the tensors that the last bind or step has summed over the processes, and what was read
  /// since: what a process gives to all-reduces, whatever the backend makes of that on the wire.
  int64_t bytes_sent() const;

  /// Has a function called after each block of every sweep.
  void set_observer(BlockObserver observer);

  /// Says where the model's parameters are by now: tensors of the same kinds and shapes, in the same order;
  /// and what its Dropouts do, a probability for each layer (Activation::dropout), or none for no Dropout.
  /// The others as Mlp has them.
  void follow(const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
              const std::vector<double>& dropout = {}, const std::vector<at::Tensor>& scales = {},
              const std::vector<at::Tensor>& shifts = {}, const std::vector<at::Tensor>& slopes = {});

  /// What a step would make of inputs and targets, as copies. Throws as it would, of weights too, where there
  /// are any; errors put `of` before "x" and "y".
  std::pair<at::Tensor, at::Tensor> checked(const at::Tensor& x, const at::Tensor& y, const std::string& of,
                                            const at::Tensor& sample_weight = {});
  /// The targets (n, d_N) of what each part of a loss "multi_output(10: cross_entropy, 1: 0.5 * squared)"
  /// takes, class indices (n,) or values (n, d_k), as bind and step take them: opt.bind(x,
  /// opt.joined_targets({classes, sizes})).
  at::Tensor joined_targets(const std::vector<at::Tensor>& y) const;
  /// Whether targets are classes to the loss, as indices or one-hot, rather than numbers of the outputs'
  /// scale.
  bool tells_classes(const at::Tensor& y) const;

  /// The objective at the current point with the options as they are now, accumulated in float64.
  double objective() { return objective_terms().total(); }
  virtual ObjectiveTerms objective_terms() = 0;
  /// Throws a c10::Error where the optimizer has moved on since a sweep.
  void check_current(const SweepId& sweep) const;
  /// The last complete sweep, or none.
  SweepId last_sweep() const { return last_sweep_; }
  /// The objective after a sweep, with the options it had; before it, where that is asked for and still
  /// known. Throws a c10::Error where the optimizer has moved on since.
  ObjectiveTerms sweep_terms(const SweepId& sweep, bool before = false);

  /// The names of the options that are numbers and kept.
  std::vector<std::string> option_names() const;
  /// An option as a list of numbers: one for each layer (four where it is a regulariser: l1, l2, low, high;
  /// NaN stands for "not given"), or one alone where it is the optimizer's.
  std::vector<double> option(const std::string& name) const;
  /// Sets an option between steps. A single number (four for a regulariser) is for all layers.
  void set_option(const std::string& name, c10::ArrayRef<double> values);
  /// The same for the options that are names.
  std::vector<std::string> choice_names() const;
  std::string choice(const std::string& name) const;
  void set_choice(const std::string& name, const std::string& value);
  /// Several of both kinds, all or none.
  void set_options(const std::map<std::string, std::vector<double>>& numbers,
                   const std::map<std::string, std::string>& choices);

  /// The options of each layer, a dict each, and the optimizer's, as Python has them; a regulariser is the
  /// list of its numbers, or None; one's own is behind them.
  c10::IValue layer_options() const;
  c10::IValue scheme_options() const;
  /// Sets some options of each layer, given as a list of dicts, or of the optimizer, given as a dict: all or
  /// none.
  void set_layer_options(const c10::IValue& groups);
  void set_scheme_options(const c10::IValue& options);

  /// What torch.save can hold: options and state, as copies, in the form that the Python optimizer's
  /// state_dict() has. It continues bit for bit. Of regularisers of one's own it has the names.
  c10::IValue state_dict();
  /// Restores what state_dict() returned, here or in Python, options included. Throws a ValueError, changing
  /// nothing, where it is of another kind of optimizer, another loss, other activations or another format,
  /// names a regulariser of one's own that this optimizer's layer does not have, or does not fit.
  void load_state_dict(const c10::IValue& state);

  /// The state alone.
  virtual SavedState state() const = 0;
  virtual void load_state(const SavedState& state) = 0;

  /// The rows of the options, for those who document them: name, whether each layer has its own, default,
  /// what it may be, choices, help.
  c10::IValue documented_options() const;

 protected:
  SplitOptimizer(const char* name, Mlp mlp, const std::string& loss);

  virtual const OptionTable& option_table() const = 0;
  /// The Options object that the table's rows are of. It does not change its place.
  virtual void* option_values() const = 0;
  /// What options may not be together. Throws.
  virtual void check_options_together() const {}
  /// Whether states may be dropped (Activation::dropout), or made by a normalisation.
  virtual bool takes_dropout() const { return false; }
  virtual bool takes_normalization() const { return false; }
  /// Whether weight_regularizers may be one's own (ProximalTerm).
  virtual bool takes_proximal() const { return false; }
  /// Throws where the options do not take rows in several processes.
  virtual void check_takes_ranks() const {}
  /// Forgets bound data.
  virtual void unbind() {}
  /// Begins a bind or a step, by `own`, what this process alone may refuse: the look at options and
  /// parameters, the checks of data. Where there are several processes, all of them throw where one does,
  /// with its reason, or unless they have the same options, weights, `way` to go on and `state`, what else
  /// decides how. `sums`, at most three, which `own` may set, become those of all processes.
  void begin(const std::string& way, const std::function<void()>& own, const std::vector<double>& state = {},
             const std::vector<double*>& sums = {});
  /// Throws where no process has any rows.
  void check_any_rows(double rows_of_all) const;
  /// Ends a sweep whose blocks of rows may fail in one process alone, by `own`, which looks for that. Where
  /// there are several processes, all of them throw where one does.
  void end(const std::function<void()>& own);
  /// Parameters have been changed from outside.
  virtual void parameters_changed() {}
  /// The objective of the last sweep with the options it had.
  virtual ObjectiveTerms last_sweep_terms(bool before) = 0;

  /// What a state must have in common with the optimizer that goes on from it: its form, kind of optimizer,
  /// loss, activations and skips.
  c10::IValue description() const;
  /// Throws a ValueError where a state has another; `whose` is how the error calls it.
  void check_description(const c10::IValue& state, const char* whose) const;
  void check_options() const;
  /// Every call's one look at options and parameters.
  void sync();
  /// The end of a complete sweep.
  void commit();
  /// The same, where bound data are in a folder with its record, made of what the point is after the sweep;
  /// of the variables' other set, or else the one that they were in.
  void commit(const std::function<SavedState(bool after)>& record, bool other_set);
  void moved() { ++revision_; }
  /// The end of a successful load_state.
  void loaded(int64_t sweeps);

  /// Throws where bound data cannot be in a folder.
  virtual void check_takes_folder() const;
  /// The folder that bound data are to be in, and the run in it; null where `dir` is none.
  std::unique_ptr<ScratchRun> open_run(const ScratchDir& dir) const;
  /// Takes over the weights and the count of sweeps that a run has recorded, which must be of so many rows.
  void take_up(const StateReader& recorded, int64_t rows, int64_t row_weights);
  /// Bound data, and what calls need for them, are in a folder from now on, or in memory.
  void keep_in(std::unique_ptr<ScratchRun> run);
  /// Throws where bound data are in a folder.
  void refuse_state_in_folder() const;

  std::unique_ptr<TrainedMlp> mlp_;
  BlockObserver observer_;
  std::unique_ptr<ScratchRun> run_;  // where bound data are, unless in memory

 private:
  void change_options(const std::function<void()>& change);

  int64_t sweeps_ = 0;
  int64_t revision_ = 0;
  SweepId last_sweep_;
};

}  // namespace torchbcd
