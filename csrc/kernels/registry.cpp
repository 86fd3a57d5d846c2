#include "kernels/registry.h"

#include <ATen/ops/full.h>
#include <ATen/ops/masked_select.h>
#include <c10/util/Exception.h>

#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "kernels/checks.h"

namespace torchbcd {
namespace {

template <typename Variant>
Variant by_name(const char* kind, std::string_view name) {
  std::optional<Variant> found;
  std::string known;
  const auto consider = [&](auto functor) {
    using Functor = decltype(functor);
    known.append(known.empty() ? "'" : ", '").append(Functor::name).append("'");
    if (name == Functor::name) {
      found = functor;
    }
  };
  [&]<size_t... I>(std::index_sequence<I...>) {
    (consider(std::variant_alternative_t<I, Variant>{}), ...);
  }(std::make_index_sequence<std::variant_size_v<Variant>>{});
  TORCH_CHECK_VALUE(found.has_value(), "torchbcd: ", kind, " must be one of ", known, " (got '", name, "')");
  return *found;
}

// "1 and 2"
std::string listed(c10::ArrayRef<double> values) {
  std::ostringstream text;
  for (size_t k = 0; k < values.size(); ++k) {
    text << (k == 0 ? "" : " and ") << values[k];
  }
  return text.str();
}

template <typename Activation>
void set_parameters(Activation& activation, c10::ArrayRef<double> values) {
  constexpr functors::ParameterCount takes = Activation::parameters;
  const int count = static_cast<int>(values.size());
  if constexpr (takes.must == nullptr) {
    TORCH_CHECK_VALUE(count == 0, "torchbcd: activation '", Activation::name, "' takes no parameters (got ",
                      count, ")");
  } else {
    TORCH_CHECK_VALUE(takes.allows(count), "torchbcd: ", takes.must, " (got ", count, ")");
    if (count > 0) {
      const char* must = activation.set(values.data(), count);
      TORCH_CHECK_VALUE(must == nullptr, "torchbcd: ", must, " (got ", listed(values), ")");
    }
  }
}

// Rows of `off` with 1 at the class that `target`, int (n,), gives; `like`, (n, classes), gives their kind.
at::Tensor one_hot(const char* op, const char* name, const at::Tensor& target, int64_t classes,
                   const at::Tensor& like, double off) {
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
    result.scatter_(1, index.unsqueeze(1), 1);
  }
  return result;
}

functors::TargetEncoding encoding_of(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.encoding; }, loss);
}

// Whether targets are probabilities.
bool is_distribution(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.probabilities; }, loss);
}

}  // namespace

functors::AnyActivation activation_from(std::string_view name, c10::ArrayRef<double> parameters) {
  functors::AnyActivation activation = by_name<functors::AnyActivation>("activation", name);
  std::visit([&](auto& f) { set_parameters(f, parameters); }, activation);
  return activation;
}

void check_monotone(const char* op, const functors::AnyActivation& activation) {
  std::visit(
      [&](const auto& f) {
        TORCH_CHECK_VALUE(f.has_preimages && f.continuous && f.monotone(), op,
                          ": the activation must be monotone and continuous (got '", f.name,
                          "', which with these parameters is not)");
      },
      activation);
}

void check_continuous(const char* op, const functors::AnyActivation& activation) {
  std::visit(
      [&](const auto& f) {
        TORCH_CHECK_VALUE(f.continuous, op, ": the activation must be continuous (got '", f.name,
                          "', which jumps)");
      },
      activation);
}

functors::AnyLoss loss_from(std::string_view name) { return by_name<functors::AnyLoss>("loss", name); }

at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss) {
  const int64_t outputs = like.size(1);
  if (encoding_of(loss) == functors::TargetEncoding::kOneHot) {
    return one_hot(op, name, target, outputs, like, /*off=*/0);
  }
  return outputs == 1 ? one_hot(op, name, target, 2, like, -1).narrow(1, 1, 1).contiguous()
                      : one_hot(op, name, target, outputs, like, -1);
}

bool predicts_targets(const functors::AnyLoss& loss) {
  return encoding_of(loss) == functors::TargetEncoding::kOneHot && !is_distribution(loss);
}

void check_outputs(const char* op, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(
      outputs > 1 || !is_distribution(loss), op,
      ": cross-entropy needs at least two outputs, since the softmax of one is always 1; for two "
      "classes and one output take the loss 'logistic'");
}

void check_takes_classes(const char* op, const char* name, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(outputs > 1 || encoding_of(loss) == functors::TargetEncoding::kPlusMinusOne, op, ": ",
                    name,
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
