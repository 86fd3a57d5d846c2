// The pybind11 module: the trainer for Python. No mathematics, no checks; those are the library's.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "engine/trainer.h"
#include "ops/registry.h"

namespace py = pybind11;

namespace {

using torchbcd::LayerOptions;
using torchbcd::ObjectiveTerms;
using torchbcd::Trainer;
using torchbcd::TrainerState;
using torchbcd::functors::Regularizer;

using OptionalTensors = std::vector<std::optional<at::Tensor>>;
using NamedParameters = std::pair<std::string, std::vector<double>>;
using RegularizerTuple = std::tuple<double, double, double, double>;  // l1, l2, low, high

Regularizer to_regularizer(const RegularizerTuple& values) {
  const auto [l1, l2, low, high] = values;
  return {l1, l2, low, high};
}

py::dict to_python(const TrainerState& state) {
  py::dict result;
  for (const auto& [name, tensors] : state) {
    py::list list;
    for (const at::Tensor& t : tensors) {
      list.append(t.defined() ? py::cast(t) : py::none());
    }
    result[py::str(name)] = list;
  }
  return result;
}

std::vector<at::Tensor> to_tensors(const OptionalTensors& optionals) {
  std::vector<at::Tensor> tensors;
  for (const std::optional<at::Tensor>& t : optionals) {
    tensors.push_back(t.value_or(at::Tensor()));
  }
  return tensors;
}

// What every sweep asks between blocks: whether Python has a signal to handle (Ctrl-C), and the
// caller's own observer, if there is one.
torchbcd::BlockObserver observer_from(const py::object& callback) {
  return [callback](const char* block, size_t layer) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) {
      throw py::error_already_set();
    }
    if (!callback.is_none()) {
      callback(block, layer);
    }
  };
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;

  py::class_<ObjectiveTerms>(m, "ObjectiveTerms")
      .def_readonly("loss", &ObjectiveTerms::loss)
      .def_readonly("activation_penalty", &ObjectiveTerms::activation_penalty)
      .def_readonly("affine_penalty", &ObjectiveTerms::affine_penalty)
      .def_readonly("weight_penalty", &ObjectiveTerms::weight_penalty)
      .def_readonly("state_penalty", &ObjectiveTerms::state_penalty)
      .def("total", &ObjectiveTerms::total);

  py::class_<Trainer>(m, "Trainer")
      .def(py::init(wrap_pybind_function(
               [](const std::vector<at::Tensor>& weights, const OptionalTensors& biases,
                  const std::vector<NamedParameters>& activations, const std::string& loss) {
                 std::vector<torchbcd::functors::Activation> functors;
                 for (const auto& [name, parameters] : activations) {
                   functors.push_back(torchbcd::activation_from(name, parameters));
                 }
                 auto trainer = std::make_unique<Trainer>(weights, to_tensors(biases), functors,
                                                          torchbcd::loss_from(loss));
                 trainer->set_observer(observer_from(py::none()));
                 return trainer;
               })),
           py::arg("weights"), py::arg("biases"), py::arg("activations"), py::arg("loss"))
      .def("set_layer_options",
           wrap_pybind_function([](Trainer& self, size_t layer, double gamma, double rho, double alpha,
                                   double alpha_weight, const RegularizerTuple& weight_regularizer,
                                   const RegularizerTuple& state_regularizer) {
             self.set_layer_options(layer,
                                    {gamma, rho, alpha, alpha_weight, to_regularizer(weight_regularizer),
                                     to_regularizer(state_regularizer)});
           }),
           py::arg("layer"), py::arg("gamma"), py::arg("rho"), py::arg("alpha"), py::arg("alpha_weight"),
           py::arg("weight_regularizer"), py::arg("state_regularizer"))
      .def("set_scheme",
           wrap_pybind_function([](Trainer& self, int splitting, bool states_first, int64_t inner_sweeps) {
             self.set_splitting(splitting == 2 ? torchbcd::Splitting::kTwo : torchbcd::Splitting::kThree);
             self.set_order(
                 states_first ? torchbcd::UpdateOrder::kStatesFirst : torchbcd::UpdateOrder::kPaper,
                 inner_sweeps);
           }),
           py::arg("splitting"), py::arg("states_first"), py::arg("inner_sweeps"))
      .def("set_loss_weight", wrap_pybind_function([](Trainer& self, double weight, bool mean) {
             self.set_loss_weight(weight, mean);
           }),
           py::arg("weight"), py::arg("mean"))
      .def("set_observer", wrap_pybind_function([](Trainer& self, const py::object& callback) {
             self.set_observer(observer_from(callback));
           }))
      .def("bind",
           wrap_pybind_function_no_gil([](Trainer& self, const at::Tensor& x, const at::Tensor& y,
                                          const std::optional<at::Tensor>& sample_weight) {
             self.bind(x, y, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none())
      .def_property_readonly("bound", &Trainer::bound)
      .def_property_readonly("sweeps", &Trainer::sweeps)
      .def("step", wrap_pybind_function_no_gil([](Trainer& self) { self.step(); }))
      .def("step_batch",
           wrap_pybind_function_no_gil([](Trainer& self, const at::Tensor& x, const at::Tensor& y,
                                          const std::optional<at::Tensor>& sample_weight) {
             self.step(x, y, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none())
      .def("step_rows",
           wrap_pybind_function_no_gil([](Trainer& self, const at::Tensor& index) { self.step_rows(index); }))
      .def("check_rows",
           wrap_pybind_function_no_gil([](Trainer& self, const at::Tensor& index, const at::Tensor& x,
                                          const at::Tensor& y) { self.check_rows(index, x, y); }))
      .def_property_readonly("revision", &Trainer::revision)
      .def("row_loss_weight", wrap_pybind_function([](Trainer& self, bool last_rows) {
             return self.loss_weight_of_a_row(last_rows);
           }),
           py::arg("last_rows") = false)
      .def("objective", wrap_pybind_function_no_gil([](Trainer& self, bool last_rows, bool before) {
             return self.objective(last_rows, before ? Trainer::When::kBefore : Trainer::When::kAfter);
           }),
           py::arg("last_rows") = false, py::arg("before") = false)
      .def("variables", wrap_pybind_function([](Trainer& self, bool last_rows, bool before) {
             return to_python(
                 self.variables(last_rows, before ? Trainer::When::kBefore : Trainer::When::kAfter));
           }),
           py::arg("last_rows") = false, py::arg("before") = false)
      .def("state", wrap_pybind_function([](Trainer& self) { return to_python(self.state()); }))
      .def("load_state",
           wrap_pybind_function([](Trainer& self, const std::map<std::string, OptionalTensors>& state) {
             TrainerState converted;
             for (const auto& [name, tensors] : state) {
               converted[name] = to_tensors(tensors);
             }
             self.load_state(converted);
           }));
}
