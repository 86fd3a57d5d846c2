#include "kernels/output_loss.h"

#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <variant>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr std::string_view kMultiOutput = "multi_output";

std::string_view without_spaces(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(' '), text.size());
  const size_t end = text.find_last_not_of(' ');
  return text.substr(begin, end == std::string_view::npos ? 0 : end + 1 - begin);
}

// "a", "b(c, d)" of "a, b(c, d)".
std::vector<std::string_view> listed_parts(std::string_view list) {
  std::vector<std::string_view> items;
  size_t begin = 0;
  int open = 0;
  for (size_t k = 0; k <= list.size(); ++k) {
    const char c = k < list.size() ? list[k] : ',';
    open += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (k == list.size() || (c == ',' && open == 0)) {
      items.push_back(without_spaces(list.substr(begin, k - begin)));
      begin = k + 1;
    }
  }
  return items;
}

template <typename Number>
bool reads_as(std::string_view text, Number& value) {
  const auto [read, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && read == text.data() + text.size();
}

// "3: 0.5 * quantile(0.9)"; what it is written as goes behind `text`.
OutputLoss::Part loss_part(std::string_view item, std::string_view all, std::string& text) {
  OutputLoss::Part part;
  const size_t colon = item.find(':');
  const bool counted =
      colon != std::string_view::npos && reads_as(without_spaces(item.substr(0, colon)), part.outputs);
  TORCH_CHECK_VALUE(counted, "torchbcd: loss '", kMultiOutput,
                    "' must have parts such as '10: cross_entropy' or "
                    "'1: 0.5 * quantile(0.9)', outputs, weight and loss (got '",
                    item, "' in '", all, "')");
  constexpr int64_t kMost = int64_t{1} << 31;  // whose sums are far from overflowing
  TORCH_CHECK_VALUE(part.outputs >= 1 && part.outputs < kMost, "torchbcd: a part of the loss '", kMultiOutput,
                    "' must have at least one output, and less than 2^31 (got ", part.outputs, ")");
  std::string_view loss = without_spaces(item.substr(colon + 1));
  std::string factor;
  if (const size_t times = loss.find('*'); times != std::string_view::npos) {
    const std::string_view weight = without_spaces(loss.substr(0, times));
    TORCH_CHECK_VALUE(reads_as(weight, part.weight) && part.weight > 0 && std::isfinite(part.weight),
                      "torchbcd: the weight of a part of the loss '", kMultiOutput,
                      "' must be finite and > 0 (got '", weight, "')");
    char digits[32];
    factor =
        part.weight == 1
            ? ""
            : std::string(digits, std::to_chars(digits, digits + sizeof(digits), part.weight).ptr) + " * ";
    loss = without_spaces(loss.substr(times + 1));
  }
  TORCH_CHECK_VALUE(!loss.starts_with(kMultiOutput), "torchbcd: a part of the loss '", kMultiOutput,
                    "' must be a loss of its own, not such a list again (got '", loss, "')");
  part.loss = loss_from(loss);
  part.class_weighting = ClassWeighting::of(NamedFunctor::loss(loss));
  text += c10::str(text.empty() ? "" : ", ", part.outputs, ": ", factor, NamedFunctor::loss(loss).text());
  return part;
}

}  // namespace

OutputLoss OutputLoss::of(std::string_view text) {
  OutputLoss loss;
  if (!text.starts_with(kMultiOutput)) {
    const NamedFunctor named = NamedFunctor::loss(text);
    loss.text = named.text();
    loss.parts.push_back({loss_from(text), ClassWeighting::of(named)});
    return loss;
  }
  const std::string_view behind = text.substr(kMultiOutput.size());
  TORCH_CHECK_VALUE(behind.size() > 2 && behind.front() == '(' && behind.back() == ')',
                    "torchbcd: loss must list its parts, such as '", kMultiOutput,
                    "(10: cross_entropy, 1: 0.5 * quantile(0.9))' (got '", text, "')");
  std::string parts;
  int64_t begin = 0;
  for (const std::string_view item : listed_parts(behind.substr(1, behind.size() - 2))) {
    loss.parts.push_back(loss_part(item, text, parts));
    loss.parts.back().begin = begin;
    begin += loss.parts.back().outputs;
  }
  TORCH_CHECK_VALUE(loss.several(), "torchbcd: loss '", kMultiOutput,
                    "' must have at least two parts (got 1)");
  loss.text = c10::str(kMultiOutput, "(", parts, ")");
  return loss;
}

bool OutputLoss::squared() const {
  return std::all_of(parts.begin(), parts.end(), [](const Part& part) {
    return std::holds_alternative<functors::SquaredLoss>(part.loss) && part.weight == 1;
  });
}

std::string OutputLoss::named(const char* name, size_t part) const {
  return several() ? c10::str(name, " of part ", part + 1) : name;
}

void OutputLoss::check_outputs(const char* op, int64_t outputs) const {
  if (several()) {
    std::string sum;
    for (const Part& part : parts) {
      sum += c10::str(sum.empty() ? "" : " + ", part.outputs);
    }
    const int64_t all = parts.back().begin + parts.back().outputs;
    TORCH_CHECK_VALUE(all == outputs, op,
                      ": the parts of the loss must have as many outputs as the last layer, ", outputs,
                      " (got ", sum, ")");
  }
  for (const Part& part : parts) {
    const int64_t own = part.outputs < 0 ? outputs : part.outputs;
    torchbcd::check_outputs(op, own, part.loss);
    part.class_weighting.check(op, own);
  }
}

void OutputLoss::check_targets(const char* op, const char* name, const at::Tensor& targets) const {
  for (size_t k = 0; k < parts.size(); ++k) {
    check_target_values(op, named(name, k).c_str(), parts[k].of(targets), parts[k].loss);
  }
}

at::Tensor OutputLoss::class_weighted(const at::Tensor& targets) const {
  if (!several()) {
    return parts.front().class_weighting(targets);
  }
  std::vector<at::Tensor> columns;
  for (const Part& part : parts) {
    columns.push_back(part.class_weighting(part.of(targets)));
  }
  return at::cat(columns, 1);
}

namespace passes {

void loss_update(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                 const OutputLoss& loss, const Regularizer& regularizer, double weight, double curvature,
                 const at::Tensor& out) {
  for (const OutputLoss::Part& part : loss.parts) {
    loss_update(part.of(y), part.of(centre), row_weight, part.loss, regularizer, weight * part.weight,
                curvature, part.of(out));
  }
}

at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss) {
  at::Tensor sum;
  for (const OutputLoss::Part& part : loss.parts) {
    const at::Tensor losses = row_losses(part.of(y), part.of(v), part.loss);
    if (part.weight != 1) {
      at::Tensor(losses).mul_(part.weight);
    }
    sum = sum.defined() ? sum.add_(losses) : losses;
  }
  return sum;
}

void loss_subdifferential(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss, double unit,
                          const at::Tensor& low, const at::Tensor& high, const at::Tensor& segment) {
  for (const OutputLoss::Part& part : loss.parts) {
    loss_subdifferential(part.of(y), part.of(v), part.loss, unit, part.of(low), part.of(high),
                         part.of(segment));
    for (const at::Tensor* t : {&low, &high, &segment}) {
      if (part.weight != 1) {
        part.of(*t).mul_(part.weight);
      }
    }
  }
}

}  // namespace passes
}  // namespace torchbcd
