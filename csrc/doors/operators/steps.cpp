// relaxed_step, bcd_sweep: one step of an optimizer as a function, weights and data in, weights out, for
// those who hold the weights themselves: torch.export, AOTInductor. An optimizer is made for the one step.
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "doors/operators/functions.h"
#include "optimizers/option_table.h"
#include "torchbcd/bcd.h"
#include "torchbcd/relaxed_bcd.h"

namespace torchbcd::operators {
namespace {

// Of "V:0:2,U:2:4": what is added, of which layer, from 0 and -1 for the inputs, and to which. A text, since
// AOTInductor's packages cannot hold a list of no numbers.
std::vector<Skip> skips_of(const char* op, std::string_view text) {
  std::vector<Skip> skips;
  while (!text.empty()) {
    const std::string item(text.substr(0, text.find(',')));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    char kind = 0, rest = 0;
    Skip skip;
    const int read =
        std::sscanf(item.c_str(), "%c:%" SCNd64 ":%" SCNd64 "%c", &kind, &skip.from, &skip.to, &rest);
    TORCH_CHECK_VALUE(read == 3 && (kind == 'U' || kind == 'V'), op,
                      ": skips must be a text such as 'V:0:2,U:2:4' (got '", item, "')");
    skip.activated = kind == 'V';
    skips.push_back(skip);
  }
  return skips;
}

// Matrices are weights, in order, and a vector behind one is its bias. Copies: what is given stays.
Mlp mlp_of_parameters(const char* op, at::TensorList parameters, const TextList& activations,
                      std::string_view skips) {
  Mlp mlp;
  for (const at::Tensor& parameter : parameters) {
    if (parameter.dim() == 2) {
      mlp.weights.push_back(parameter.detach().clone());
      mlp.biases.emplace_back();
    } else {
      TORCH_CHECK_VALUE(
          parameter.dim() == 1 && !mlp.weights.empty() && !mlp.biases.back().defined(), op,
          ": parameters must be matrices, each with at most one vector behind it, its bias (got ",
          parameter.sizes(), ")");
      mlp.biases.back() = parameter.detach().clone();
    }
  }
  for (const std::string& text : activations) {
    mlp.activations.push_back(Activation::parse(text));
    TORCH_CHECK_VALUE(mlp.activations.back().dropout == 0, op,
                      ": a function of its arguments takes no Dropout (got '", text, "')");
    TORCH_CHECK_VALUE(mlp.activations.back().normalization.none() && mlp.activations.back().name != "prelu",
                      op, ": takes no LayerNorm and no slope that is trained (got '", text, "')");
  }
  mlp.skips = skips_of(op, skips);
  return mlp;
}

std::vector<double> numbers_of(const char* op, const std::string& text) {
  std::vector<double> numbers;
  const char* at = text.data();
  const char* end = at + text.size();
  for (;;) {
    double number = 0;
    const auto [behind, error] = std::from_chars(at, end, number);
    TORCH_CHECK_VALUE(error == std::errc() && (behind == end || *behind == ','), op,
                      ": options must have numbers with commas between them behind '=' (got '", text, "')");
    numbers.push_back(number);
    if (behind == end) {
      return numbers;
    }
    at = behind + 1;
  }
}

// Options as a constructor takes them, of "name=1,2;name:word": a number is for all layers, several are one
// for each, a regulariser's its own.
template <typename Optimizer, typename Options>
Options options_of(const char* op, std::string_view text, size_t depth, std::string_view loss) {
  Options options;
  while (!text.empty()) {
    const std::string item(text.substr(0, text.find(';')));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t at = item.find_first_of("=:");
    TORCH_CHECK_VALUE(at != std::string::npos, op,
                      ": options must be a text such as 'lr=0.5;loss_scaling:mean' (got '", item, "')");
    const OptionRow& row = Optimizer::table().start_row(item.substr(0, at));
    const std::string value = item.substr(at + 1);
    if (item[at] == ':') {
      set_option_of_all(&options, row, value);
      continue;
    }
    const std::vector<double> numbers = numbers_of(op, value);
    if (numbers.size() == 1) {
      set_option_numbers(&options, row, depth, numbers);
      continue;
    }
    Options of_layers = options;
    Optimizer::table().spread(&of_layers, depth);
    set_option_numbers(&of_layers, row, depth, numbers);
    std::visit([&](auto* kept) { *kept = *std::get<decltype(kept)>(row.in(&of_layers)); }, row.in(&options));
  }
  return options.loss(std::string(loss));
}

void append(std::vector<at::Tensor>& list, const std::vector<at::Tensor>& weights,
            const std::vector<at::Tensor>& biases) {
  for (size_t l = 0; l < weights.size(); ++l) {
    list.push_back(weights[l]);
    if (biases[l].defined()) {
      list.push_back(biases[l]);
    }
  }
}

}  // namespace

std::vector<Tensor> step_relaxed(const Tensor& x, const Tensor& y, at::TensorList parameters,
                                 at::TensorList velocity, const TextList& activations, std::string_view skips,
                                 std::string_view loss, std::string_view options) {
  constexpr const char* op = "torchbcd::relaxed_step";
  const Mlp mlp = mlp_of_parameters(op, parameters, activations, skips);
  RelaxedBCD optimizer(mlp, options_of<RelaxedBCD, RelaxedBCDOptions>(op, options, mlp.depth(), loss));
  if (!velocity.empty()) {
    const Mlp steps = mlp_of_parameters(op, velocity, activations, {});
    SavedState state;
    state.numbers = {{"sweeps", {1}}, {"standardize", {-1}}};
    state.tensors = {{"weight_velocity", steps.weights}, {"bias_velocity", steps.biases}};
    optimizer.load_state(state);
  }
  optimizer.step(x, y);
  std::vector<at::Tensor> result;
  append(result, optimizer.mlp().weights, optimizer.mlp().biases);
  const SavedState state = optimizer.state();
  const auto weights = state.tensors.find("weight_velocity");
  if (weights != state.tensors.end()) {
    append(result, weights->second, state.tensors.at("bias_velocity"));
  } else {
    for (size_t i = 0, count = result.size(); i < count; ++i) {
      result.push_back(at::zeros_like(result[i]));
    }
  }
  return result;
}

std::vector<Tensor> sweep_of_bcd(const Tensor& x, const Tensor& y, at::TensorList parameters,
                                 at::TensorList u, at::TensorList v, const TextList& activations,
                                 std::string_view skips, std::string_view loss, std::string_view options) {
  constexpr const char* op = "torchbcd::bcd_sweep";
  const Mlp mlp = mlp_of_parameters(op, parameters, activations, skips);
  BCD optimizer(mlp, options_of<BCD, BCDOptions>(op, options, mlp.depth(), loss));
  optimizer.bind(x, y, {}, u.vec(), v.vec());
  optimizer.step();
  const BCD::Variables at = optimizer.variables();
  std::vector<at::Tensor> result;
  append(result, at.W, at.b);
  result.insert(result.end(), at.U.begin(), at.U.end());
  result.insert(result.end(), at.V.begin() + 1, at.V.end());
  return result;
}

}  // namespace torchbcd::operators
