// The pybind11 module: the optimizers for Python. Values go in and out as Python has them; what they mean,
// and whether they are right, the optimizers say.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "doors/optional_tensors.h"
#include "doors/python_bind.h"
#include "doors/python_model.h"
#include "doors/python_ridge_head.h"
#include "doors/python_values.h"
#include "optimizers/option_table.h"
#include "torchbcd/bcd.h"
#include "torchbcd/dladmm.h"
#include "torchbcd/dlam.h"
#include "torchbcd/relaxed_bcd.h"

namespace torchbcd::python {
namespace {

using torch::wrap_pybind_function;

// RelaxedBCD's setting for any depth: the options that are not the defaults.
py::object options_for_any_depth() {
  RelaxedBCDOptions setting = RelaxedBCDOptions::for_any_depth();
  c10::impl::GenericDict changed = python_dict();
  for (const OptionRow& row : RelaxedBCD::table().rows()) {
    if (get_option(&setting, row, 0) != RelaxedBCD::table().default_of(row)) {
      changed.insert(row.name, get_option(&setting, row, 0));
    }
  }
  return to_python(changed);
}

template <typename Optimizer, typename Options>
std::unique_ptr<Optimizer> make(const Mlp& mlp, const std::string& loss, const py::dict& given) {
  Options options;
  for (const auto& [key, value] : given) {
    const OptionRow& row = Optimizer::table().start_row(py::cast<std::string>(key));
    set_option_of_all(&options, row,
                      to_ivalue(value, std::string(row.name) + " must be " + kind_of(&options, row)));
  }
  auto optimizer = std::make_unique<Optimizer>(mlp, options.loss(loss));
  optimizer->set_observer(observer_from(py::none()));
  return optimizer;
}

/// An optimizer with what all of them have. Their own bind and step follow.
template <typename Optimizer, typename Options>
py::class_<Optimizer> optimizer_class(py::module_& m, const char* name) {
  return py::class_<Optimizer>(m, name)
      .def(py::init(wrap_pybind_function(make<Optimizer, Options>)))
      .def("set_observer", wrap_pybind_function([](Optimizer& self, const py::object& f) {
             self.set_observer(observer_from(f));
           }))
      .def("follow", wrap_pybind_function(
                         [](Optimizer& self, const OptionalTensors& weights, const OptionalTensors& biases,
                            const std::vector<double>& dropout, const OptionalTensors& scales,
                            const OptionalTensors& shifts, const OptionalTensors& slopes) {
                           self.follow(handles(weights), handles(biases), dropout, handles(scales),
                                       handles(shifts), handles(slopes));
                         }))
      .def_property_readonly("bound", &Optimizer::bound)
      .def_property_readonly("sweeps", &Optimizer::sweeps)
      .def_property_readonly("bytes_sent", &Optimizer::bytes_sent)
      .def_property_readonly("last_sweep", &Optimizer::last_sweep)
      .def("set_process_group",
           wrap_pybind_function_no_gil([](Optimizer& self, const std::string& name, int64_t rank) {
             self.set_process_group(name, rank);
           }))
      .def("check_current", &Optimizer::check_current)
      .def("refuse", wrap_pybind_function_no_gil(
                         [](Optimizer& self, const std::string& reason) { self.refuse(reason); }))
      .def("checked",
           wrap_pybind_function([](Optimizer& self, Rows x, Rows y, const std::string& of, Weight weight) {
             return self.checked(x, y, of, weight.value_or(at::Tensor()));
           }))
      .def("joined_targets",
           wrap_pybind_function_no_gil(
               [](Optimizer& self, const std::vector<at::Tensor>& y) { return self.joined_targets(y); }))
      .def("layer_options", [](Optimizer& self) { return to_python(self.layer_options()); })
      .def("scheme_options", [](Optimizer& self) { return to_python(self.scheme_options()); })
      .def("documented_options", [](Optimizer& self) { return to_python(self.documented_options()); })
      .def("set_layer_options", wrap_pybind_function([](Optimizer& self, const py::list& groups) {
             self.set_layer_options(to_ivalue(groups, ""));
           }))
      .def("set_scheme_options", wrap_pybind_function([](Optimizer& self, const py::dict& options) {
             self.set_scheme_options(to_ivalue(options, ""));
           }))
      .def("state_dict", wrap_pybind_function([](Optimizer& self) { return to_python(self.state_dict()); }))
      .def("load_state_dict", wrap_pybind_function([](Optimizer& self, const py::dict& state) {
             self.load_state_dict(to_ivalue(state, "state_dict must hold tensors, numbers and names"));
           }))
      .def("variables", wrap_pybind_function([](Optimizer& self) { return named(self.variables()); }))
      .def("objective", wrap_pybind_function_no_gil([](Optimizer& self) { return self.objective(); }))
      .def("sweep_terms", wrap_pybind_function_no_gil([](Optimizer& self, const SweepId& sweep, bool before) {
             return self.sweep_terms(sweep, before);
           }));
}

/// step(), and step_batch(x, y, sample_weight).
template <typename Optimizer>
py::class_<Optimizer> with_steps(py::class_<Optimizer> c) {
  return c.def("step", wrap_pybind_function_no_gil([](Optimizer& self) { return self.step(); }))
      .def("step_batch", wrap_pybind_function_no_gil([](Optimizer& self, Rows x, Rows y, Weight weight) {
             return self.step(x, y, weight.value_or(at::Tensor()));
           }));
}

void bind_bcd(py::module_& m) {
  py::class_<BCD::Point>(m, "Point")
      .def_property_readonly("variables", [](const BCD::Point& self) { return named(self.variables); })
      .def_readonly("y", &BCD::Point::y)
      .def_readonly("row_weight", &BCD::Point::row_weight)
      .def_readonly("row_loss_weight", &BCD::Point::row_loss_weight)
      .def_readonly("trained", &BCD::Point::trained)
      .def_property_readonly("slopes", [](const BCD::Point& self) { return to_optional(self.slopes); })
      .def_property_readonly("regularize_bias",
                             [](const BCD::Point& self) { return self.options.regularize_bias(); })
      .def_property_readonly("splitting", [](const BCD::Point& self) { return self.options.splitting(); })
      .def_property_readonly("order", [](const BCD::Point& self) { return self.options.order(); })
      .def_property_readonly("blocks", blocks_of)
      .def("penalties", penalties_of);
  with_steps(with_bind_from_in_folder(optimizer_class<BCD, BCDOptions>(m, "BCD")))
      .def("step_rows", wrap_pybind_function_no_gil([](BCD& self, const at::Tensor& index,
                                                       const OptionalTensor& x, const OptionalTensor& y) {
             self.step_rows(index, x.value_or(at::Tensor()), y.value_or(at::Tensor()));
           }))
      .def("point", wrap_pybind_function_no_gil([](BCD& self) { return self.point(); }))
      .def("sweep_point", wrap_pybind_function_no_gil([](BCD& self, const SweepId& sweep, bool before) {
             return self.sweep_point(sweep, before);
           }));
}

void bind_relaxed(py::module_& m) {
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
  with_steps(with_bind_in_folder(optimizer_class<RelaxedBCD, RelaxedBCDOptions>(m, "RelaxedBCD")))
      .def("default_weight_decay", [](RelaxedBCD& self, size_t layer, const at::Tensor& y) {
        return self.options().default_weight_decay(layer, self.tells_classes(y));
      });
}

void bind_dlam(py::module_& m) {
  with_bind_from(optimizer_class<DLAM, DLAMOptions>(m, "DLAM"))
      .def_property_readonly("sweeps_since_bind", &DLAM::sweeps_since_bind)
      .def("step", wrap_pybind_function_no_gil([](DLAM& self) { return fields(self.step()); }))
      .def("step_batch", wrap_pybind_function_no_gil(
                             [](DLAM& self, Rows x, Rows y, std::optional<int64_t> sweeps, Weight weight) {
                               return fields(self.step(x, y, sweeps, weight.value_or(at::Tensor())));
                             }))
      .def("gap", wrap_pybind_function_no_gil([](DLAM& self) { return self.gap(); }))
      .def("sweep_gap", wrap_pybind_function_no_gil(
                            [](DLAM& self, const SweepId& sweep) { return self.sweep_gap(sweep); }));
  with_bind(optimizer_class<DLADMM, DLADMMOptions>(m, "DLADMM"))
      .def("step", wrap_pybind_function_no_gil([](DLADMM& self) { return fields(self.step()); }));
}

}  // namespace
}  // namespace torchbcd::python

PYBIND11_MODULE(_C, m) {
  using namespace torchbcd;
  python::bind_model(m);
  pybind11::class_<ObjectiveTerms>(m, "ObjectiveTerms")
      .def_readonly("loss", &ObjectiveTerms::loss)
      .def_readonly("activation_penalty", &ObjectiveTerms::activation_penalty)
      .def_readonly("affine_penalty", &ObjectiveTerms::affine_penalty)
      .def_readonly("weight_penalty", &ObjectiveTerms::weight_penalty)
      .def_readonly("state_penalty", &ObjectiveTerms::state_penalty)
      .def("total", &ObjectiveTerms::total);
  m.def("relaxed_options_for_any_depth", python::options_for_any_depth);
  python::bind_bcd(m);
  python::bind_relaxed(m);
  python::bind_dlam(m);
  python::bind_ridge_head(m);
}
