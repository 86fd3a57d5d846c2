// From the names that Python, TorchScript and C++ programs use to the functors behind them, and from the
// targets that they give to those of a loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <vector>

#include "functors/activations.h"
#include "functors/losses.h"
#include "torchbcd/export.h"

namespace torchbcd {

/// The activation called `name` with the parameters that its functor takes, or its defaults; ValueError, with
/// the list of names, where there is none.
TORCHBCD_API functors::AnyActivation activation_from(std::string_view name, c10::ArrayRef<double> parameters);

/// Throws a ValueError, in the name of `op`, unless the activation is monotone and continuous, as DLAM's
/// blocks need it (quasilinear: Wang et al., Assumption 1).
void check_monotone(const char* op, const functors::AnyActivation& activation);

/// Throws a ValueError, in the name of `op`, where the activation jumps.
void check_continuous(const char* op, const functors::AnyActivation& activation);

/// An activation or a loss as users write it: a name and, in parentheses, its numbers, such as
/// "quantile(0.9)".
struct TORCHBCD_API NamedFunctor {
  std::string name;
  std::vector<double> parameters;

  /// ValueError, in the name of `kind` and with an example, where the text is not of this form.
  static NamedFunctor parse(const char* kind, const char* example, std::string_view text);
  static NamedFunctor loss(std::string_view text) { return parse("loss", "quantile(0.9)", text); }
  /// The one text of all that are parsed as the same.
  std::string text() const;
};

/// The loss of such a text; ValueError, with the list of names, where there is none, or where the numbers are
/// not what it takes.
TORCHBCD_API functors::AnyLoss loss_from(std::string_view text);

/// What a cross-entropy's label smoothing s and weights of classes make of its targets: t_c becomes weight_c
/// ((1 - s) t_c + s/C). So they are in the targets, and no pass has to know of them.
struct ClassWeighting {
  double smoothing = 0;
  std::vector<double> weight;  // of each class; none where all weigh one

  /// Of a loss; nothing but for a cross-entropy with numbers.
  static ClassWeighting of(const NamedFunctor& loss);
  /// Throws a ValueError, in the name of `op`, unless there is a weight for each output, or none.
  void check(const char* op, int64_t outputs) const;
  /// Targets (n, C) with that in them.
  at::Tensor operator()(const at::Tensor& targets) const;
};

/// Class indices, int (n,), as targets (n, C) for `loss`, by its encoding: one-hot rows; or one class against
/// the rest, +1 and -1 or 1 and 0, where C = 1 stands for two classes. `like`, (n, C), gives shape and kind.
/// Errors speak of `name`, in the name of `op`.
at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss);

/// Whether outputs are compared with the targets themselves, as numbers of one scale.
bool predicts_targets(const functors::AnyLoss& loss);

/// Throws a ValueError where `loss` has nothing to say on so many outputs.
void check_outputs(const char* op, int64_t outputs, const functors::AnyLoss& loss);

/// Throws a ValueError where class indices mean nothing to `loss` with so many outputs.
void check_takes_classes(const char* op, const char* name, int64_t outputs, const functors::AnyLoss& loss);

/// Throws a ValueError where a target is beyond the range that `loss` states, or where it asks for -1 and 1
/// and there is another.
void check_target_values(const char* op, const char* name, const at::Tensor& target,
                         const functors::AnyLoss& loss);

/// The targets of a cross-entropy as probabilities (n, C): what `target` holds, or the one-hot rows of its
/// class indices (n,). `like`, (n, C), gives shape and kind.
at::Tensor class_probabilities(const char* op, const char* name, const at::Tensor& target,
                               const at::Tensor& like);

}  // namespace torchbcd
