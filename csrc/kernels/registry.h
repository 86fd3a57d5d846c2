// From the names that Python, TorchScript and C++ programs use to the functors behind them, and from the
// targets that they give to those of a loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

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

/// The loss called `name`; ValueError, with the list of names, where there is none.
TORCHBCD_API functors::AnyLoss loss_from(std::string_view name);

/// Class indices, int (n,), as targets (n, C) for `loss`, by its encoding: one-hot rows; or one class against
/// the rest, +1 and -1, where C = 1 stands for two classes. `like`, (n, C), gives shape and kind. Errors
/// speak of `name`, in the name of `op`.
at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss);

/// Whether outputs are compared with the targets themselves, as numbers of one scale.
bool predicts_targets(const functors::AnyLoss& loss);

/// Throws a ValueError where `loss` has nothing to say on so many outputs.
void check_outputs(const char* op, int64_t outputs, const functors::AnyLoss& loss);

/// Throws a ValueError where class indices mean nothing to `loss` with so many outputs.
void check_takes_classes(const char* op, const char* name, int64_t outputs, const functors::AnyLoss& loss);

/// Throws a ValueError where `loss` asks for probabilities and there is a negative target, or for -1 and 1
/// and there is another.
void check_target_values(const char* op, const char* name, const at::Tensor& target,
                         const functors::AnyLoss& loss);

/// The targets of a cross-entropy as probabilities (n, C): what `target` holds, or the one-hot rows of its
/// class indices (n,). `like`, (n, C), gives shape and kind.
at::Tensor class_probabilities(const char* op, const char* name, const at::Tensor& target,
                               const at::Tensor& like);

}  // namespace torchbcd
