// Argument checks that the operators share. Messages read "torchbcd::op: what must hold (got ...)".
#pragma once

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
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

}  // namespace torchbcd::checks
