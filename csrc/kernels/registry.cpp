#include "kernels/registry.h"

#include <ATen/ops/full.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
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

template <typename Functor>
void set_parameters(const char* kind, Functor& functor, c10::ArrayRef<double> values) {
  constexpr functors::ParameterCount takes = Functor::parameters;
  const int count = static_cast<int>(values.size());
  if constexpr (takes.must == nullptr) {
    TORCH_CHECK_VALUE(count == 0, "torchbcd: ", kind, " '", Functor::name, "' takes no parameters (got ",
                      count, ")");
  } else {
    TORCH_CHECK_VALUE(takes.allows(count), "torchbcd: ", takes.must, " (got ", count, ")");
    if (count > 0) {
      const char* must = functor.set(values.data(), count);
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

functors::TargetRange range_of(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.targets; }, loss);
}

bool has_softmax(const functors::AnyLoss& loss) {
  return std::visit([](const auto& l) { return l.softmax; }, loss);
}

}  // namespace

functors::AnyActivation activation_from(std::string_view name, c10::ArrayRef<double> parameters) {
  functors::AnyActivation activation = by_name<functors::AnyActivation>("activation", name);
  std::visit([&](auto& f) { set_parameters("activation", f, parameters); }, activation);
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

NamedFunctor NamedFunctor::parse(const char* kind, const char* example, std::string_view text) {
  const size_t open = text.find('(');
  NamedFunctor named{std::string(text.substr(0, open)), {}};
  if (open == std::string_view::npos) {
    return named;
  }
  TORCH_CHECK_VALUE(text.back() == ')', "torchbcd: ", kind,
                    " must be a name, or a name and numbers, such as '", example, "' (got '", text, "')");
  std::istringstream list(std::string(text.substr(open + 1, text.size() - open - 2)));
  for (std::string item; std::getline(list, item, ',');) {
    const char* begin = item.data() + std::min(item.find_first_not_of(' '), item.size());
    const char* end = item.data() + item.size();
    double value = 0;
    const auto [read, error] = std::from_chars(begin, end, value);
    TORCH_CHECK_VALUE(error == std::errc() && read == end, "torchbcd: ", kind, " '", text,
                      "' must have numbers in its parentheses (got '", item, "')");
    named.parameters.push_back(value);
  }
  return named;
}

std::string NamedFunctor::text() const {
  std::string text = name;
  for (size_t k = 0; k < parameters.size(); ++k) {
    char digits[32];  // the shortest that reads back as the same number
    const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), parameters[k]);
    text.append(k == 0 ? "(" : ", ").append(digits, end);
  }
  return parameters.empty() ? text : text + ")";
}

functors::AnyLoss loss_from(std::string_view text) {
  const NamedFunctor named = NamedFunctor::loss(text);
  functors::AnyLoss loss = by_name<functors::AnyLoss>("loss", named.name);
  std::visit([&](auto& f) { set_parameters("loss", f, named.parameters); }, loss);
  return loss;
}

ClassWeighting ClassWeighting::of(const NamedFunctor& loss) {
  if (loss.name != functors::CrossEntropyLoss::name || loss.parameters.empty()) {
    return {};
  }
  return {loss.parameters.front(), {loss.parameters.begin() + 1, loss.parameters.end()}};
}

void ClassWeighting::check(const char* op, int64_t outputs) const {
  TORCH_CHECK_VALUE(weight.empty() || static_cast<int64_t>(weight.size()) == outputs, op,
                    ": the loss 'cross_entropy' must have a weight for each of the ", outputs,
                    " classes, or none (got ", weight.size(), ")");
}

at::Tensor ClassWeighting::operator()(const at::Tensor& targets) const {
  at::Tensor changed = targets;
  if (smoothing > 0) {
    changed = changed.mul(1 - smoothing).add_(smoothing / static_cast<double>(targets.size(1)));
  }
  return weight.empty() ? changed : changed.mul(at::tensor(weight, at::kDouble).to(targets.options()));
}

at::Tensor encode_classes(const char* op, const char* name, const at::Tensor& target, const at::Tensor& like,
                          const functors::AnyLoss& loss) {
  const functors::TargetEncoding encoding = encoding_of(loss);
  const int64_t outputs = like.size(1);
  const double off = encoding == functors::TargetEncoding::kPlusMinusOne ? -1 : 0;
  const bool two_classes = outputs == 1 && encoding != functors::TargetEncoding::kOneHot;
  return two_classes ? one_hot(op, name, target, 2, like, off).narrow(1, 1, 1).contiguous()
                     : one_hot(op, name, target, outputs, like, off);
}

bool predicts_targets(const functors::AnyLoss& loss) {
  return encoding_of(loss) == functors::TargetEncoding::kOneHot &&
         std::visit([](const auto& l) { return l.outputs_are_targets; }, loss);
}

void check_outputs(const char* op, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(
      outputs > 1 || !has_softmax(loss), op,
      ": cross-entropy needs at least two outputs, since the softmax of one is always 1; for two "
      "classes and one output take the loss 'binary_cross_entropy' or 'logistic'");
}

void check_takes_classes(const char* op, const char* name, int64_t outputs, const functors::AnyLoss& loss) {
  TORCH_CHECK_VALUE(outputs > 1 || encoding_of(loss) != functors::TargetEncoding::kOneHot, op, ": ", name,
                    " holds integers, which are class indices, and one output tells no classes apart by this "
                    "loss; give numbers, y[:, None].float()");
}

void check_target_values(const char* op, const char* name, const at::Tensor& target,
                         const functors::AnyLoss& loss) {
  if (target.numel() == 0) {
    return;
  }
  if (const functors::TargetRange range = range_of(loss); range.must != nullptr) {
    const auto least = target.min().item<double>();
    const auto greatest = target.max().item<double>();
    TORCH_CHECK_VALUE(least >= range.least && greatest <= range.greatest, op, ": ", name, " ", range.must,
                      " (got ", least < range.least ? least : greatest, ")");
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
