// Argument checks that the operators share. Messages read "torchbcd::op: what must hold (got ...)".
#pragma once

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <initializer_list>

namespace torchbcd::checks {

struct Argument {
  const char* name;
  const at::Tensor& tensor;
};

inline void positive(const char* op, const char* name, double value) {
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, op, ": ", name,
                    " must be a finite positive number (got ", value, ")");
}

inline void non_negative(const char* op, const char* name, double value) {
  TORCH_CHECK_VALUE(std::isfinite(value) && value >= 0, op, ": ", name, " must be a finite number >= 0 (got ",
                    value, ")");
}

inline void same_floating_kind(const char* op, std::initializer_list<Argument> arguments) {
  const Argument& first = *arguments.begin();
  for (const Argument& argument : arguments) {
    const at::Tensor& t = argument.tensor;
    TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, op, ": ", argument.name,
                     " must be a float32 or float64 tensor (got ", t.scalar_type(), ")");
    TORCH_CHECK_TYPE(t.scalar_type() == first.tensor.scalar_type(), op, ": ", argument.name,
                     " must have the dtype of ", first.name, ", ", first.tensor.scalar_type(), " (got ",
                     t.scalar_type(), ")");
    TORCH_CHECK_VALUE(t.device() == first.tensor.device(), op, ": ", argument.name,
                      " must be on the device of ", first.name, ", ", first.tensor.device(), " (got ",
                      t.device(), ")");
  }
}

inline void broadcastable(const char* op, const Argument& a, const Argument& b) {
  TORCH_CHECK_VALUE(at::are_expandable(a.tensor.sizes(), b.tensor.sizes()), op, ": ", a.name, " and ", b.name,
                    " must have shapes that broadcast (got ", a.tensor.sizes(), " and ", b.tensor.sizes(),
                    ")");
}

inline void has_shape(const char* op, const Argument& argument, at::IntArrayRef shape, const char* meaning) {
  TORCH_CHECK_VALUE(argument.tensor.sizes() == shape, op, ": ", argument.name, " must have shape ", meaning,
                    " = ", shape, " (got ", argument.tensor.sizes(), ")");
}

inline void is_matrix(const char* op, const Argument& argument, const char* meaning) {
  TORCH_CHECK_VALUE(argument.tensor.dim() == 2, op, ": ", argument.name, " must be a matrix of shape ",
                    meaning, " (got ", argument.tensor.sizes(), ")");
}

/// Rows of `off` with `on` at the class that `target`, int (n,), gives; `like`, (n, C), gives their kind.
inline at::Tensor one_hot(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          double off = 0, double on = 1) {
  const int64_t rows = like.size(0);
  const int64_t classes = like.size(1);
  TORCH_CHECK_VALUE(target.dim() == 1 && target.size(0) == rows, op, ": ", name,
                    " of class indices must have shape (n,) = [", rows, "] (got ", target.sizes(), ")");
  const at::Tensor index = target.to(at::kLong);
  at::Tensor result = at::full({rows, classes}, off, like.options());
  if (rows > 0) {
    const int64_t least = index.min().item<int64_t>();
    const int64_t greatest = index.max().item<int64_t>();
    TORCH_CHECK_VALUE(least >= 0 && greatest < classes, op, ": ", name, " must hold classes from 0 to ",
                      classes - 1, " (got ", least < 0 ? least : greatest, ")");
    result.scatter_(1, index.unsqueeze(1), on);
  }
  return result;
}

/// The targets of a cross-entropy as probabilities (n, C): what `target` holds, or the one-hot rows of its
/// class indices (n,). `like`, (n, C), gives shape and kind.
inline at::Tensor class_probabilities(const char* op, const char* name, const at::Tensor& target,
                                      const at::Tensor& like) {
  TORCH_CHECK_VALUE(target.device() == like.device(), op, ": ", name, " must be on the device of b, ",
                    like.device(), " (got ", target.device(), ")");
  if (c10::isIntegralType(target.scalar_type(), /*includeBool=*/false)) {
    return one_hot(op, name, target, like);
  }
  TORCH_CHECK_TYPE(target.scalar_type() == like.scalar_type(), op, ": ", name,
                   " must hold class indices or have the dtype of b, ", like.scalar_type(), " (got ",
                   target.scalar_type(), ")");
  has_shape(op, {name, target}, like.sizes(), "that of b");
  TORCH_CHECK_VALUE(target.numel() == 0 || target.min().item<double>() >= 0, op, ": ", name,
                    " must hold probabilities >= 0 (got ", target.min().item<double>(), ")");
  return target;
}

}  // namespace torchbcd::checks
