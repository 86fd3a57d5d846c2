#include "kernels/targets.h"

#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <variant>

#include "kernels/checks.h"

namespace torchbcd {
namespace {

// Rows of `off` with 1 at the class that `target`, int (n,), gives; `like`, (n, classes), gives their kind.
at::Tensor one_hot(const char* op, const char* name, const at::Tensor& target, int64_t classes,
                   const at::Tensor& like, double off) {
  const int64_t rows = like.size(0);
  TORCH_CHECK_VALUE(target.dim() == 1 && target.size(0) == rows, op, ": ", name,
                    " of class indices must have shape (n,) = [", rows, "] (got ", target.sizes(), ")");
  const at::Tensor index = target.to(at::kLong);
  at::Tensor result = at::full({rows, classes}, off, like.options());
  if (rows > 0) {
    const int64_t least = index.min().item<int64_t>();
    const int64_t greatest = index.max().item<int64_t>();
    TORCH_CHECK_VALUE(least >= 0 && greatest < classes, op, ": ", name, " must hold classes from 0 to ",
                      classes - 1, " (got ", least < 0 ? least : greatest, ")");
    result.scatter_(1, index.unsqueeze(1), 1);
  }
  return result;
}

}  // namespace

at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss) {
  const functors::TargetEncoding encoding = std::visit([](const auto& l) { return l.encoding; }, loss);
  const int64_t outputs = like.size(1);
  if (encoding == functors::TargetEncoding::kOneHot) {
    return one_hot(op, name, target, outputs, like, /*off=*/0);
  }
  return outputs == 1 ? one_hot(op, name, target, 2, like, -1).narrow(1, 1, 1).contiguous()
                      : one_hot(op, name, target, outputs, like, -1);
}

void check_probabilities(const char* op, const char* name, const at::Tensor& target,
                         const functors::AnyLoss& loss) {
  const bool demanded = std::visit([](const auto& l) { return l.probabilities; }, loss);
  TORCH_CHECK_VALUE(!demanded || target.numel() == 0 || target.min().item<double>() >= 0, op, ": ", name,
                    " must hold probabilities >= 0 (got ", target.min().item<double>(), ")");
}

at::Tensor class_probabilities(const char* op, const char* name, const at::Tensor& target,
                               const at::Tensor& like) {
  const functors::AnyLoss loss = functors::CrossEntropyLoss{};
  TORCH_CHECK_VALUE(target.device() == like.device(), op, ": ", name, " must be on the device of b, ",
                    like.device(), " (got ", target.device(), ")");
  if (c10::isIntegralType(target.scalar_type(), /*includeBool=*/false)) {
    return encode_classes(op, name, target, like, loss);
  }
  TORCH_CHECK_TYPE(target.scalar_type() == like.scalar_type(), op, ": ", name,
                   " must hold class indices or have the dtype of b, ", like.scalar_type(), " (got ",
                   target.scalar_type(), ")");
  checks::has_shape(op, {name, target}, like.sizes(), "that of b");
  check_probabilities(op, name, target, loss);
  return target;
}

}  // namespace torchbcd
