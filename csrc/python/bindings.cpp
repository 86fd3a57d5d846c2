#include "python/bindings.h"

namespace torchbcd::python {

functors::Regularizer to_regularizer(const RegularizerTuple& values) {
  const auto [l1, l2, low, high] = values;
  return {l1, l2, low, high};
}

py::dict to_python(const TrainerState& state) {
  py::dict result;
  for (const auto& [name, tensors] : state) {
    py::list list;
    for (const at::Tensor& t : tensors) {
      list.append(t.defined() ? py::cast(t) : py::none());
    }
    result[py::str(name)] = list;
  }
  return result;
}

TrainerState to_state(const OptionalState& state) {
  TrainerState converted;
  for (const auto& [name, tensors] : state) {
    converted[name] = from_optional(tensors);
  }
  return converted;
}

std::vector<functors::Activation> to_activations(const std::vector<NamedParameters>& activations) {
  std::vector<functors::Activation> functors;
  for (const auto& [name, parameters] : activations) {
    functors.push_back(activation_from(name, parameters));
  }
  return functors;
}

BlockObserver observer_from(const py::object& callback) {
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
