// RidgeHead for Python.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace torchbcd::python {

void bind_ridge_head(pybind11::module_& m);

}  // namespace torchbcd::python
