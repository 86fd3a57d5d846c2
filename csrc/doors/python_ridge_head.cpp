// RidgeHead for Python.
#include <torch/csrc/Exceptions.h>

#include "doors/python_ridge_head.h"
#include "doors/python_values.h"
#include "torchbcd/ridge_head.h"

namespace torchbcd::python {
namespace {

using torch::wrap_pybind_function;
using torch::wrap_pybind_function_no_gil;
using OptionalTensor = std::optional<at::Tensor>;
using Solution = std::pair<at::Tensor, OptionalTensor>;

Solution to_optional(const std::pair<at::Tensor, at::Tensor>& solution) {
  const auto& [weight, bias] = solution;
  return {weight, bias.defined() ? OptionalTensor(bias) : std::nullopt};
}

}  // namespace

void bind_ridge_head(py::module_& m) {
  py::class_<RidgeHead>(m, "RidgeHead")
      .def(py::init(wrap_pybind_function([](int64_t features, std::optional<int64_t> outputs, bool bias) {
        return std::make_unique<RidgeHead>(features, outputs, bias);
      })))
      .def_property_readonly("features", &RidgeHead::features)
      .def_property_readonly("outputs", &RidgeHead::outputs)
      .def_property_readonly("has_bias", &RidgeHead::has_bias)
      .def_property_readonly("rows", &RidgeHead::rows)
      .def_property_readonly("weight", &RidgeHead::weight)
      .def("partial_fit", wrap_pybind_function_no_gil([](RidgeHead& self, const at::Tensor& f,
                                                         const at::Tensor& y, const OptionalTensor& w) {
             self.partial_fit(f, y, w.value_or(at::Tensor()));
           }))
      .def("remove", wrap_pybind_function_no_gil(
                         [](RidgeHead& self, const at::Tensor& f, const at::Tensor& y,
                            const OptionalTensor& w) { self.remove(f, y, w.value_or(at::Tensor())); }))
      .def("merge",
           wrap_pybind_function_no_gil([](RidgeHead& self, const RidgeHead& other) { self.merge(other); }))
      .def("reset", wrap_pybind_function_no_gil([](RidgeHead& self) { self.reset(); }))
      .def("solve", wrap_pybind_function_no_gil(
                        [](RidgeHead& self, double alpha) { return to_optional(self.solve(alpha)); }))
      .def("path", wrap_pybind_function_no_gil([](RidgeHead& self, const std::vector<double>& alphas) {
             std::vector<Solution> path;
             for (const auto& solution : self.path(alphas)) {
               path.push_back(to_optional(solution));
             }
             return path;
           }))
      .def("leave_one_out",
           wrap_pybind_function_no_gil([](RidgeHead& self, const std::vector<double>& alphas,
                                          const at::Tensor& f, const at::Tensor& y, const OptionalTensor& w) {
             return self.leave_one_out(alphas, f, y, w.value_or(at::Tensor()));
           }))
      .def("state_dict", wrap_pybind_function([](RidgeHead& self) { return to_python(self.state_dict()); }))
      .def("load_state_dict", wrap_pybind_function([](RidgeHead& self, const py::dict& state) {
             self.load_state_dict(to_ivalue(state, "state_dict must hold tensors and numbers"));
           }));
}

}  // namespace torchbcd::python
