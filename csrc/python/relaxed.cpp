#include "engine/relaxed.h"

#include "python/bindings.h"

namespace torchbcd::python {

void bind_relaxed(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;

  py::class_<RelaxedReport>(m, "RelaxedReport")
      .def_property_readonly("before", [](const RelaxedReport& self) { return self.before.value(); })
      .def_readonly("penalties", &RelaxedReport::penalties)
      .def_property_readonly("decreases",
                             [](const RelaxedReport& self) {
                               std::vector<std::tuple<std::string, size_t, double>> result;
                               for (const BlockDecrease& d : self.decreases) {
                                 result.emplace_back(d.block, d.layer, d.decrease.value());
                               }
                               return result;
                             })
      .def_readonly("halved", &RelaxedReport::halved)
      .def_readonly("guard_halvings", &RelaxedReport::guard_halvings);

  trainer_class<RelaxedTrainer>(m, "RelaxedTrainer")
      .def("set_layer_options",
           wrap_pybind_function([](RelaxedTrainer& self, size_t layer, double relaxation,
                                   double over_relaxation, double damping, double penalty_ratio,
                                   int64_t state_steps, int64_t row_blocks, double cap, double momentum,
                                   double weight_decay, const RegularizerTuple& weight_regularizer) {
             self.set_layer_options(
                 layer, {relaxation, over_relaxation, damping, penalty_ratio, state_steps, row_blocks, cap,
                         momentum, weight_decay, to_regularizer(weight_regularizer)});
           }),
           py::arg("layer"), py::arg("relaxation"), py::arg("over_relaxation"), py::arg("damping"),
           py::arg("penalty_ratio"), py::arg("state_steps"), py::arg("row_blocks"), py::arg("cap"),
           py::arg("momentum"), py::arg("weight_decay"), py::arg("weight_regularizer"))
      .def("set_options",
           wrap_pybind_function([](RelaxedTrainer& self, bool guard, bool persistent, double output_penalty) {
             self.set_options({guard, persistent, output_penalty});
           }),
           py::arg("guard"), py::arg("persistent"), py::arg("output_penalty"))
      .def("bind",
           wrap_pybind_function_no_gil(
               [](RelaxedTrainer& self, const at::Tensor& x, const at::Tensor& y) { self.bind(x, y); }),
           py::arg("x"), py::arg("y"))
      .def("step", wrap_pybind_function_no_gil([](RelaxedTrainer& self) { return self.step(); }))
      .def("step_batch",
           wrap_pybind_function_no_gil([](RelaxedTrainer& self, const at::Tensor& x, const at::Tensor& y) {
             return self.step(x, y);
           }),
           py::arg("x"), py::arg("y"))
      .def("objective", wrap_pybind_function_no_gil([](RelaxedTrainer& self) { return self.objective(); }))
      .def("variables",
           wrap_pybind_function([](RelaxedTrainer& self) { return to_python(self.variables()); }));
}

}  // namespace torchbcd::python
