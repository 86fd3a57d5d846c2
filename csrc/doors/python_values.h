// Values between Python and C++: numbers, names, None, tensors, lists and dicts of them, and functions.
#pragma once

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "doors/optional_tensors.h"
#include "doors/python_proximal.h"
#include "optimizers/dicts.h"
#include "optimizers/option_table.h"
#include "sweeps/bcd_order.h"
#include "torchbcd/bcd.h"
#include "torchbcd/dladmm.h"
#include "torchbcd/dlam.h"
#include "torchbcd/reports.h"

namespace torchbcd::python {

namespace py = pybind11;

/// A value of Python's; a regulariser becomes the list of its numbers, with a term of one's own behind them.
/// `what` begins the error where it is nothing that a value could be.
inline c10::IValue to_ivalue(const py::handle& value, const std::string& what) {
  const auto is_a = [&](const char* kind) {  // NumPy's numbers are such, too
    return py::isinstance(value, py::module_::import("numbers").attr(kind));
  };
  if (value.is_none()) {
    return {};
  }
  if (PyBool_Check(value.ptr())) {
    return value.cast<bool>();
  }
  if (PyFloat_Check(value.ptr())) {
    return value.cast<double>();
  }
  if (PyUnicode_Check(value.ptr())) {
    return value.cast<std::string>();
  }
  if (THPVariable_Check(value.ptr())) {
    return value.cast<at::Tensor>();
  }
  if (PyLong_Check(value.ptr()) || is_a("Integral")) {
    return value.cast<int64_t>();
  }
  if (is_a("Real")) {
    return value.cast<double>();
  }
  if (PyDict_Check(value.ptr())) {
    c10::impl::GenericDict dict = python_dict();
    for (const auto& item : value.cast<py::dict>()) {
      const auto key = item.first.cast<std::string>();
      dict.insert(key,
                  to_ivalue(item.second, what.empty() ? key + " must be a number, a name or None" : what));
    }
    return dict;
  }
  if (is_proximal(value)) {
    return proximal_value(value);
  }
  if (py::hasattr(value, "numbers")) {
    return to_ivalue(value.attr("numbers"), what);
  }
  TORCH_CHECK_TYPE(py::isinstance<py::sequence>(value), what, " (got ", py::repr(value).cast<std::string>(),
                   ")");
  c10::impl::GenericList list = python_list();
  for (const auto& item : value.cast<py::sequence>()) {
    list.push_back(to_ivalue(item, what));
  }
  return list;
}

inline py::object to_python(const c10::IValue& value) {
  if (value.isList()) {
    py::list list;
    for (const c10::IValue& item : value.toListRef()) {
      list.append(to_python(item));
    }
    return list;
  }
  if (value.isGenericDict()) {
    py::dict dict;
    for (const auto& item : value.toGenericDict()) {
      dict[to_python(item.key())] = to_python(item.value());
    }
    return dict;
  }
  if (const std::shared_ptr<const ProximalTerm> term = term_in(value)) {
    return python_term(*term);
  }
  return value.isTensor()   ? py::cast(value.toTensor())
         : value.isString() ? py::cast(value.toStringRef())
         : value.isBool()   ? py::cast(value.toBool())
         : value.isInt()    ? py::cast(value.toInt())
         : value.isDouble() ? py::cast(value.toDouble())
                            : py::object(py::none());
}

/// A report's numbers by name.
using Fields = std::map<std::string, std::variant<double, int64_t, std::vector<double>>>;

inline Fields fields(const DlamReport& r) {
  return {{"eps", r.eps},
          {"omega", r.omega},
          {"theta", r.theta},
          {"tau", r.tau},
          {"weight_omega", r.weight_omega},
          {"state_omega", r.state_omega},
          {"weight_slack", r.weight_slack},
          {"state_slack", r.state_slack},
          {"redone", r.redone},
          {"kept", r.kept},
          {"trials", r.trials},
          {"products", r.products}};
}

inline Fields fields(const DladmmReport& r) {
  return {
      {"theta", r.theta}, {"tau", r.tau}, {"primal_residual", r.primal_residual}, {"products", r.products}};
}

/// An optimizer's variables by name.
using NamedTensors = std::map<std::string, OptionalTensors>;

inline NamedTensors named(const BCD::Variables& v) {
  return {{"W", to_optional(v.W)}, {"b", to_optional(v.b)}, {"U", to_optional(v.U)}, {"V", to_optional(v.V)}};
}
inline NamedTensors named(const DLAM::Variables& v) {
  return {{"W", to_optional(v.W)}, {"b", to_optional(v.b)}, {"z", to_optional(v.z)}, {"a", to_optional(v.a)}};
}
inline NamedTensors named(const DLADMM::Variables& v) {
  NamedTensors tensors = named(DLAM::Variables{v.W, v.b, v.z, v.a});
  tensors["u"] = {v.u};
  return tensors;
}

/// The blocks of the sweep that led to a point, in their order: variables with their layers, from 0.
inline std::vector<std::pair<char, size_t>> blocks_of(const BCD::Point& point) {
  std::vector<std::pair<char, size_t>> blocks;
  for (const BcdBlock& block : blocks_in_order(point.options, point.trained.size())) {
    blocks.emplace_back(block.variable, block.layer);
  }
  return blocks;
}

/// gamma, rho, alpha, alpha_weight, r and s of a layer.
inline auto penalties_of(const BCD::Point& point, size_t l) {
  BCDOptions o = point.options;
  const auto option = [&](const char* name) { return to_python(get_option(&o, BCD::table().row(name), l)); };
  return std::tuple{o.gamma()[l],
                    o.rho_of(l),
                    o.alpha()[l],
                    o.alpha_weight_of(l),
                    option("weight_regularizer"),
                    option("state_regularizer")};
}

/// What every sweep asks between blocks: whether Python has a signal to handle (Ctrl-C), and the caller's own
/// observer, if there is one.
inline BlockObserver observer_from(const py::object& callback) {
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

}  // namespace torchbcd::python
