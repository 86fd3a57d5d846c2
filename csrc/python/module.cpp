// The pybind11 module: the trainers for Python. No mathematics, no checks; those are the library's.
#include "python/bindings.h"

PYBIND11_MODULE(_C, m) {
  namespace py = pybind11;
  using torchbcd::ObjectiveTerms;

  py::class_<ObjectiveTerms>(m, "ObjectiveTerms")
      .def_readonly("loss", &ObjectiveTerms::loss)
      .def_readonly("activation_penalty", &ObjectiveTerms::activation_penalty)
      .def_readonly("affine_penalty", &ObjectiveTerms::affine_penalty)
      .def_readonly("weight_penalty", &ObjectiveTerms::weight_penalty)
      .def_readonly("state_penalty", &ObjectiveTerms::state_penalty)
      .def("total", &ObjectiveTerms::total);

  torchbcd::python::bind_bcd(m);
  torchbcd::python::bind_dladmm(m);
  torchbcd::python::bind_dlam(m);
  torchbcd::python::bind_relaxed(m);
}
