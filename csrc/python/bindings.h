// What the pybind11 bindings of the trainers share.
#pragma once

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/mlp_trainer.h"
#include "engine/optional_tensors.h"
#include "ops/registry.h"

namespace torchbcd::python {

namespace py = pybind11;

using OptionalState = std::map<std::string, OptionalTensors>;
using NamedParameters = std::pair<std::string, std::vector<double>>;
using RegularizerTuple = std::tuple<double, double, double, double>;  // l1, l2, low, high

functors::Regularizer to_regularizer(const RegularizerTuple& values);
py::dict to_python(const TrainerState& state);
TrainerState to_state(const OptionalState& state);
std::vector<functors::Activation> to_activations(const std::vector<NamedParameters>& activations);

// What every sweep asks between blocks: whether Python has a signal to handle (Ctrl-C), and the caller's own
// observer, if there is one.
BlockObserver observer_from(const py::object& callback);

/// A trainer with the constructor that they all have, and its observer, counters and state.
template <typename Trainer>
py::class_<Trainer> trainer_class(py::module_& m, const char* name) {
  using torch::wrap_pybind_function;
  py::class_<Trainer> c(m, name);
  c.def(py::init(wrap_pybind_function(
            [](const std::vector<at::Tensor>& weights, const OptionalTensors& biases,
               const std::vector<NamedParameters>& activations, const std::string& loss) {
              auto trainer = std::make_unique<Trainer>(weights, from_optional(biases),
                                                       to_activations(activations), loss_from(loss));
              trainer->set_observer(observer_from(py::none()));
              return trainer;
            })),
        py::arg("weights"), py::arg("biases"), py::arg("activations"), py::arg("loss"));
  c.def("set_loss_weight", wrap_pybind_function([](Trainer& self, double weight, bool mean) {
          self.set_loss_weight(weight, mean);
        }),
        py::arg("weight"), py::arg("mean"));
  c.def("set_observer", wrap_pybind_function([](Trainer& self, const py::object& callback) {
          self.set_observer(observer_from(callback));
        }));
  c.def_property_readonly("bound", [](const Trainer& self) { return self.bound(); });
  c.def_property_readonly("sweeps", [](const Trainer& self) { return self.sweeps(); });
  c.def_property_readonly("revision", [](const Trainer& self) { return self.revision(); });
  c.def("state", wrap_pybind_function([](Trainer& self) { return to_python(self.state()); }));
  c.def("load_state", wrap_pybind_function([](Trainer& self, const OptionalState& state) {
          self.load_state(to_state(state));
        }));
  return c;
}

void bind_bcd(py::module_& m);
void bind_dladmm(py::module_& m);
void bind_dlam(py::module_& m);
void bind_relaxed(py::module_& m);

}  // namespace torchbcd::python
