// The ways in which optimizers take a full batch from Python.
#pragma once

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <string>
#include <vector>

namespace torchbcd::python {

namespace py = pybind11;
using torch::wrap_pybind_function_no_gil;
using OptionalTensor = std::optional<at::Tensor>;
using StartingStates = std::vector<at::Tensor>;
using Rows = const at::Tensor&;
using Weight = const OptionalTensor&;

/// bind(x, y, sample_weight).
template <typename Optimizer>
py::class_<Optimizer> with_bind(py::class_<Optimizer> c) {
  return c.def("bind", wrap_pybind_function_no_gil([](Optimizer& self, Rows x, Rows y, Weight weight) {
                 self.bind(x, y, weight.value_or(at::Tensor()));
               }));
}

/// bind(x, y, sample_weight, and what its two variables start from).
template <typename Optimizer>
py::class_<Optimizer> with_bind_from(py::class_<Optimizer> c) {
  return c.def("bind",
               wrap_pybind_function_no_gil([](Optimizer& self, Rows x, Rows y, Weight weight,
                                              const StartingStates& first, const StartingStates& second) {
                 self.bind(x, y, weight.value_or(at::Tensor()), first, second);
               }));
}

/// bind(x, y, sample_weight, a scratch folder, whether to go on with the run in it).
template <typename Optimizer>
py::class_<Optimizer> with_bind_in_folder(py::class_<Optimizer> c) {
  return c.def("bind", wrap_pybind_function_no_gil([](Optimizer& self, Rows x, Rows y, Weight weight,
                                                      const std::string& folder, bool resume) {
                 self.bind(x, y, weight.value_or(at::Tensor()), {folder, resume});
               }));
}

/// bind(x, y, sample_weight, what its two variables start from, a scratch folder, whether to go on).
template <typename Optimizer>
py::class_<Optimizer> with_bind_from_in_folder(py::class_<Optimizer> c) {
  return c.def("bind", wrap_pybind_function_no_gil(
                           [](Optimizer& self, Rows x, Rows y, Weight weight, const StartingStates& first,
                              const StartingStates& second, const std::string& folder, bool resume) {
                             self.bind(x, y, weight.value_or(at::Tensor()), first, second, {folder, resume});
                           }));
}

}  // namespace torchbcd::python
