#include "kernels/targets.h"

#include <ATen/ops/full.h>
#include <ATen/ops/masked_select.h>
#include <c10/util/Exception.h>

#include <type_traits>
#include <variant>

#include "kernels/checks.h"

namespace torchbcd {
namespace {

// Rows of `off` with `on` at the class that `target`, int (n,), gives; `like`, (n, classes), gives their
// kind.
at::Tensor one_hot(const char* op, const char* name, const at::Tensor& target, int64_t classes,
                   const at::Tensor& like, double off, double on) {
  const int64_t rows = like.size(0);
  TORCH_CHECK_VALUE(target.dim() == 1 && target.size(0) == rows, op, ": ", name,
                    " of class indices must have shape (n,) = [", rows, "] (got ", target.sizes(), ")",
                    target.dim() == 2 && target.size(1) == 1 ? "; use squeeze(1)" : "");
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

functors::TargetEncoding encoding_of(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return std::decay_t<decltype(l)>::encoding; }, loss);
}

// Whether targets are probabilities.
bool is_distribution(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return std::decay_t<decltype(l)>::probabilities; }, loss);
}

}  // namespace

at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss) {
  const int64_t outputs = like.size(1);
  switch (encoding_of(loss)) {
    case functors::TargetEncoding::kOneHot:
      return one_hot(op, name, target, outputs, like, 0, 1);
    case functors::TargetEncoding::kPlusMinusOne:
      if (outputs == 1) {
        return one_hot(op, name, target, 2, like, -1, 1).narrow(1, 1, 1).contiguous();
      }
      return one_hot(op, name, target, outputs, like, -1, 1);
  }
  TORCH_INTERNAL_ASSERT(false, "an encoding that is not written yet");
}

bool predicts_targets(const functors::AnyLoss& loss) {
  return encoding_of(loss) == functors::TargetEncoding::kOneHot && !is_distribution(loss);
}

void check_outputs(const char* op, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(outputs > 1 || !is_distribution(loss), op,
                    ": cross-entropy needs at least two outputs, since the softmax of one is always 1; for two "
                    "classes and one output take the loss 'logistic'");
}

void check_takes_classes(const char* op, const char* name, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(outputs > 1 || encoding_of(loss) == functors::TargetEncoding::kPlusMinusOne, op, ": ", name,
                    " holds integers, which are class indices, and one output tells no classes apart by this "
                    "loss; give numbers, y[:, None].float()");
}

void check_target_values(const char* op, const char* name, const at::Tensor& target,
                         const functors::AnyLoss& loss) {
  if (target.numel() == 0) {
    return;
  }
  if (is_distribution(loss)) {
    const auto least = target.min().item<double>();
    TORCH_CHECK_VALUE(least >= 0, op, ": ", name, " must hold probabilities >= 0 (got ", least, ")");
  } else if (encoding_of(loss) == functors::TargetEncoding::kPlusMinusOne) {
    const at::Tensor wrong = target.masked_select(target.abs().ne(1));
    TORCH_CHECK_VALUE(wrong.numel() == 0, op, ": ", name,
                      " must hold -1 and 1 for this loss, or class indices of an integer dtype (got ",
                      wrong.numel() == 0 ? 0 : wrong[0].item<double>(), ")");
  }
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
  check_target_values(op, name, target, loss);
  return target;
}

}  // namespace torchbcd
