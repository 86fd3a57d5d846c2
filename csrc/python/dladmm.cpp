#include "engine/dladmm.h"

#include "python/bindings.h"

namespace torchbcd::python {

void bind_dladmm(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;

  py::class_<DladmmReport>(m, "DladmmReport")
      .def_readonly("theta", &DladmmReport::theta)
      .def_readonly("tau", &DladmmReport::tau)
      .def_readonly("primal_residual", &DladmmReport::primal_residual)
      .def_readonly("products", &DladmmReport::products);

  trainer_class<DladmmTrainer>(m, "DladmmTrainer")
      .def("set_layer_options",
           wrap_pybind_function([](DladmmTrainer& self, size_t layer, double penalty,
                                   const RegularizerTuple& weight_regularizer) {
             self.set_layer_options(layer, {penalty, to_regularizer(weight_regularizer)});
           }),
           py::arg("layer"), py::arg("penalty"), py::arg("weight_regularizer"))
      .def("bind",
           wrap_pybind_function_no_gil([](DladmmTrainer& self, const at::Tensor& x, const at::Tensor& y,
                                          const std::optional<at::Tensor>& sample_weight) {
             self.bind(x, y, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none())
      .def("step", wrap_pybind_function_no_gil([](DladmmTrainer& self) { return self.step(); }))
      .def("objective", wrap_pybind_function_no_gil([](DladmmTrainer& self) { return self.objective(); }))
      .def("variables",
           wrap_pybind_function([](DladmmTrainer& self) { return to_python(self.variables()); }));
}

}  // namespace torchbcd::python
