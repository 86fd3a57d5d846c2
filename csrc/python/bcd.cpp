#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/GradMode.h>

#include <string>

#include "engine/bcd_trainer.h"
#include "python/bindings.h"

namespace torchbcd::python {
namespace {

// A collective operation on a tensor, in place, over a process group by its name. Never through Python, where
// wait_tensor has its autograd: gloo's threads drop the tensor some time after its values are there, and one
// that Python has seen takes the interpreter's lock for that, which aborts the process where the interpreter
// is ending. Nor is the group kept alive.
void collective(const char* name, const at::Tensor& values, const c10::IValue& how,
                const std::string& group) {
  const at::AutoDispatchBelowAutograd below_autograd;
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  torch::jit::Stack stack{values, how, group};
  dispatcher.findSchemaOrThrow(name, "").callBoxed(stack);
  dispatcher.findSchemaOrThrow("_c10d_functional::wait_tensor", "").callBoxed(stack);
}

}  // namespace

void bind_bcd(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  const auto when = [](bool before) { return before ? BcdTrainer::When::kBefore : BcdTrainer::When::kAfter; };

  trainer_class<BcdTrainer>(m, "BcdTrainer")
      .def("set_layer_options",
           wrap_pybind_function([](BcdTrainer& self, size_t layer, double gamma, double rho, double alpha,
                                   double alpha_weight, const RegularizerTuple& weight_regularizer,
                                   const RegularizerTuple& state_regularizer) {
             self.set_layer_options(layer,
                                    {gamma, rho, alpha, alpha_weight, to_regularizer(weight_regularizer),
                                     to_regularizer(state_regularizer)});
           }),
           py::arg("layer"), py::arg("gamma"), py::arg("rho"), py::arg("alpha"), py::arg("alpha_weight"),
           py::arg("weight_regularizer"), py::arg("state_regularizer"))
      .def("set_scheme",
           wrap_pybind_function([](BcdTrainer& self, int splitting, bool states_first, int64_t inner_sweeps) {
             self.set_splitting(splitting == 2 ? Splitting::kTwo : Splitting::kThree);
             self.set_order(states_first ? UpdateOrder::kStatesFirst : UpdateOrder::kPaper, inner_sweeps);
           }),
           py::arg("splitting"), py::arg("states_first"), py::arg("inner_sweeps"))
      .def("set_process_group", wrap_pybind_function_no_gil([](BcdTrainer& self, const std::string& name) {
             const c10::NoGradGuard no_grad;
             for (const AffineMap& map : self.parameters()) {
               for (const at::Tensor& parameter : {map.weight, map.bias}) {
                 if (parameter.defined()) {
                   const at::Tensor values = parameter.clone(at::MemoryFormat::Contiguous);
                   collective("_c10d_functional::broadcast_", values, 0, name);
                   parameter.copy_(values);
                 }
               }
             }
             self.set_sum_over_ranks([name](const at::Tensor& sums) {
               collective("_c10d_functional::all_reduce_", sums, "sum", name);
             });
           }),
           py::arg("name"))
      .def("bind",
           wrap_pybind_function_no_gil([](BcdTrainer& self, const at::Tensor& x, const at::Tensor& y,
                                          const std::optional<at::Tensor>& sample_weight) {
             self.bind(x, y, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none())
      .def("step", wrap_pybind_function_no_gil([](BcdTrainer& self) { self.step(); }))
      .def("step_batch",
           wrap_pybind_function_no_gil([](BcdTrainer& self, const at::Tensor& x, const at::Tensor& y,
                                          const std::optional<at::Tensor>& sample_weight) {
             self.step(x, y, sample_weight.value_or(at::Tensor()));
           }),
           py::arg("x"), py::arg("y"), py::arg("sample_weight") = py::none())
      .def("step_rows", wrap_pybind_function_no_gil(
                            [](BcdTrainer& self, const at::Tensor& index) { self.step_rows(index); }))
      .def("check_rows",
           wrap_pybind_function_no_gil([](BcdTrainer& self, const at::Tensor& index, const at::Tensor& x,
                                          const at::Tensor& y) { self.check_rows(index, x, y); }))
      .def("row_loss_weight", wrap_pybind_function([](BcdTrainer& self, bool last_rows) {
             return self.loss_weight_of_a_row(last_rows);
           }),
           py::arg("last_rows") = false)
      .def("objective", wrap_pybind_function_no_gil([when](BcdTrainer& self, bool last_rows, bool before) {
             return self.objective(last_rows, when(before));
           }),
           py::arg("last_rows") = false, py::arg("before") = false)
      .def("variables", wrap_pybind_function([when](BcdTrainer& self, bool last_rows, bool before) {
             return to_python(self.variables(last_rows, when(before)));
           }),
           py::arg("last_rows") = false, py::arg("before") = false);
}

}  // namespace torchbcd::python
