#include "engine/dlam.h"

#include "python/bindings.h"

namespace torchbcd::python {

void bind_dlam(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;

  py::class_<DlamReport>(m, "DlamReport")
      .def_readonly("eps", &DlamReport::eps)
      .def_readonly("omega", &DlamReport::omega)
      .def_readonly("theta", &DlamReport::theta)
      .def_readonly("tau", &DlamReport::tau)
      .def_readonly("weight_omega", &DlamReport::weight_omega)
      .def_readonly("state_omega", &DlamReport::state_omega)
      .def_readonly("weight_slack", &DlamReport::weight_slack)
      .def_readonly("state_slack", &DlamReport::state_slack)
      .def_readonly("redone", &DlamReport::redone)
      .def_readonly("kept", &DlamReport::kept)
      .def_readonly("trials", &DlamReport::trials)
      .def_readonly("products", &DlamReport::products);

  trainer_class<DlamTrainer>(m, "DlamTrainer")
      .def("set_layer_options",
           wrap_pybind_function(
               [](DlamTrainer& self, size_t layer, double rho, const RegularizerTuple& weight_regularizer) {
                 self.set_layer_options(layer, {rho, to_regularizer(weight_regularizer)});
               }),
           py::arg("layer"), py::arg("rho"), py::arg("weight_regularizer"))
      .def("set_options",
           wrap_pybind_function([](DlamTrainer& self, bool monotone, bool joint, const std::string& momentum,
                                   double weight_damping, bool fista, bool check_conditions) {
             const Momentum chosen = momentum == "nesterov" ? Momentum::kNesterov
                                     : momentum == "capped" ? Momentum::kCapped
                                                            : Momentum::kNone;
             self.set_options({monotone, joint, chosen, weight_damping,
                               fista ? OutputSolver::kFista : OutputSolver::kProx, check_conditions});
           }),
           py::arg("monotone"), py::arg("joint"), py::arg("momentum"), py::arg("weight_damping"),
           py::arg("fista"), py::arg("check_conditions"))
      .def("bind",
           wrap_pybind_function_no_gil([](DlamTrainer& self, const at::Tensor& x, const at::Tensor& y,
                                          double eps, const std::optional<at::Tensor>& sample_weight) {
             self.bind(x, y, eps, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("eps"), py::arg("sample_weight") = py::none())
      .def("step", wrap_pybind_function_no_gil([](DlamTrainer& self, double eps) { return self.step(eps); }))
      .def("step_batch",
           wrap_pybind_function_no_gil([](DlamTrainer& self, const at::Tensor& x, const at::Tensor& y,
                                          double eps, int64_t sweeps,
                                          const std::optional<at::Tensor>& sample_weight) {
             return self.step(x, y, eps, sweeps, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("eps"), py::arg("sweeps"),
           py::arg("sample_weight") = py::none())
      .def("objective", wrap_pybind_function_no_gil([](DlamTrainer& self) { return self.objective(); }))
      .def("gaps", wrap_pybind_function_no_gil([](DlamTrainer& self) { return self.gaps(); }))
      .def("variables", wrap_pybind_function([](DlamTrainer& self) { return to_python(self.variables()); }));
}

}  // namespace torchbcd::python
