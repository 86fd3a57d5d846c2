// Regularisers of one's own between Python and C++: torchbcd.regularizers.ProximalTerm, whose functions C++
// calls from whatever thread steps, which does not hold Python's lock.
#pragma once

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <string>
#include <utility>

#include "optimizers/proximal_value.h"

namespace torchbcd::python {

namespace py = pybind11;

/// Whether a value is a regulariser with a term of one's own.
inline bool is_proximal(const py::handle& value) {
  return py::hasattr(value, "proximal") && !value.attr("proximal").is_none();
}

/// Python's object, which may be let go of without the lock.
inline std::shared_ptr<void> held(const py::object& object) {
  return {new py::object(object), [](py::object* kept) {
            if (Py_IsInitialized() != 0) {
              const py::gil_scoped_acquire gil;
              delete kept;
            }
          }};
}

inline const py::object& object_in(const std::shared_ptr<void>& held_object) {
  return *static_cast<const py::object*>(held_object.get());
}

/// The numbers of a regulariser's entries, and its term. What the functions raise is raised where they are
/// called; an answer that is no tensor becomes an undefined one.
inline c10::IValue proximal_value(const py::handle& regularizer) {
  const py::object term = regularizer.attr("proximal");
  ProximalTerm made{term.attr("name").cast<std::string>(), {}, {}, held(term)};
  const std::shared_ptr<void> prox = held(term.attr("prox")), value = held(term.attr("value"));
  made.prox = [prox](const at::Tensor& weight, double step) {
    const py::gil_scoped_acquire gil;
    const py::object answer = object_in(prox)(weight, step);
    return THPVariable_Check(answer.ptr()) ? answer.cast<at::Tensor>() : at::Tensor();
  };
  made.value = [value](const at::Tensor& weight) {
    const py::gil_scoped_acquire gil;
    return py::float_(object_in(value)(weight)).cast<double>();
  };
  c10::impl::GenericList list = python_list();
  for (const char* name : {"l1", "l2", "low", "high"}) {
    list.push_back(regularizer.attr(name).cast<double>());
  }
  list.push_back(capsule_of(std::make_shared<const ProximalTerm>(std::move(made))));
  return list;
}

/// Python's term again, or the name of one that C++ has made.
inline py::object python_term(const ProximalTerm& term) {
  return term.origin ? object_in(term.origin) : py::object(py::cast(term.name));
}

}  // namespace torchbcd::python
