// A model of Python's: its modules as Python has found them, and its parameters.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "doors/optional_tensors.h"
#include "optimizers/found_modules.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd::python {

// A parameter of the model's by another handle: torch.utils.swap_tensors refuses those that anyone holds.
inline at::Tensor handle(const std::optional<at::Tensor>& parameter) {
  if (!parameter) {
    return {};
  }
  const c10::InferenceMode as_it_is(parameter->is_inference());
  return parameter->detach().set_requires_grad(parameter->requires_grad());
}

inline std::vector<at::Tensor> handles(const OptionalTensors& parameters) {
  std::vector<at::Tensor> result;
  std::transform(parameters.begin(), parameters.end(), std::back_inserter(result), handle);
  return result;
}

// (kind, position, text, weight, bias, activation, its parameters, a Dropout's probability or a LayerNorm's
// eps and shape, whether it is trainable, how many Residuals begin with it and how many end) of each module.
using PythonModule = std::tuple<std::string, std::string, std::string, std::optional<at::Tensor>,
                                std::optional<at::Tensor>, std::string, std::vector<double>, bool, int, int>;

inline std::vector<FoundModule> found_of(const std::vector<PythonModule>& modules) {
  using Kind = FoundModule::Kind;
  const std::map<std::string, Kind> kinds = {
      {"linear", Kind::kLinear},        {"activation", Kind::kActivation},
      {"layer_norm", Kind::kLayerNorm}, {"dropout", Kind::kDropout},
      {"flatten", Kind::kFlatten},      {"partial_flatten", Kind::kPartialFlatten},
      {"unknown", Kind::kUnknown}};
  std::vector<FoundModule> found;
  for (const auto& [kind, position, text, weight, bias, activation, parameters, trainable, begins, ends] :
       modules) {
    found.push_back({kinds.at(kind),
                     position,
                     text,
                     handle(weight),
                     handle(bias),
                     {activation, parameters},
                     trainable,
                     begins,
                     ends});
    if (found.back().kind == Kind::kDropout) {
      found.back().activation = {"", {}, parameters.at(0)};
    } else if (found.back().kind == Kind::kLayerNorm) {
      found.back().eps = parameters.at(0);
      found.back().shape.assign(parameters.begin() + 1, parameters.end());
    }
  }
  return found;
}

/// How many modules come before the layers.
inline size_t before_layers(const std::vector<PythonModule>& modules) {
  return modules_before_layers(found_of(modules));
}

/// The layers behind `begin` modules; `frozen_first` is what those before them compute, or None.
inline Mlp read_modules(const std::vector<PythonModule>& modules, size_t begin, const std::string& supported,
                        const pybind11::object& frozen_first) {
  Mlp mlp = mlp_of(found_of(modules), begin, supported);
  if (!frozen_first.is_none()) {
    mlp.frozen_first = [frozen_first](const at::Tensor& x) {
      const pybind11::gil_scoped_acquire gil;
      return frozen_first(x).cast<at::Tensor>();
    };
  }
  return mlp;
}

inline void bind_model(pybind11::module_& m) {
  pybind11::class_<Mlp>(m, "Mlp").def_property_readonly("skips", [](const Mlp& mlp) {
    std::vector<std::tuple<int64_t, int64_t, bool>> skips;
    for (const auto& [from, to, activated] : mlp.skips) {
      skips.emplace_back(from, to, activated);
    }
    return skips;
  });
  pybind11::class_<SweepId>(m, "SweepId").def_readonly("sweep", &SweepId::sweep);
  m.def("before_layers", torch::wrap_pybind_function(before_layers));
  m.def("read_modules", torch::wrap_pybind_function(read_modules));
}

}  // namespace torchbcd::python
