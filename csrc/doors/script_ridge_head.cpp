// torch.classes.torchbcd.RidgeHead: the head as an object of TorchScript.
#include <torch/custom_class.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "doors/optional_tensors.h"
#include "doors/script_state.h"
#include "torchbcd/ridge_head.h"

namespace torchbcd {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Solution = std::tuple<at::Tensor, OptionalTensor>;

Solution to_script(const std::pair<at::Tensor, at::Tensor>& solution) {
  const auto& [weight, bias] = solution;
  return {weight, bias.defined() ? OptionalTensor(bias) : std::nullopt};
}

struct ScriptRidgeHead : torch::CustomClassHolder {
  ScriptRidgeHead(int64_t features, std::optional<int64_t> outputs, bool bias)
      : head(features, outputs, bias) {}

  RidgeHead head;
};

// The sizes that a head was made with, and its state. 0 outputs: as many as appear.
using SavedHead = std::tuple<int64_t, int64_t, bool, ScriptTensors, ScriptNumbers>;

SavedHead saved(const ScriptRidgeHead& self) {
  const SavedState state = self.head.state();
  const bool grows = state.numbers.at("ridge_head")[2] != 0;
  const auto [tensors, numbers] = to_script(state);
  return {self.head.features(), grows ? 0 : self.head.outputs(), self.head.has_bias(), tensors, numbers};
}

c10::intrusive_ptr<ScriptRidgeHead> restored(const SavedHead& saved) {
  const auto& [features, outputs, bias, tensors, numbers] = saved;
  auto self = c10::make_intrusive<ScriptRidgeHead>(
      features, outputs == 0 ? std::nullopt : std::optional<int64_t>(outputs), bias);
  self->head.load_state(from_script(tensors, numbers));
  return self;
}

auto ridge_head_class() {
  using torch::arg;
  using Self = c10::intrusive_ptr<ScriptRidgeHead>;
  const c10::IValue none;
  return torch::class_<ScriptRidgeHead>("torchbcd", "RidgeHead")
      .def(torch::init<int64_t, std::optional<int64_t>, bool>(), "",
           {arg("features"), arg("outputs") = none, arg("bias") = true})
      .def("features", [](const Self& self) { return self->head.features(); })
      .def("outputs", [](const Self& self) { return self->head.outputs(); })
      .def("rows", [](const Self& self) { return self->head.rows(); })
      .def("weight", [](const Self& self) { return self->head.weight(); })
      .def("partial_fit",
           [](const Self& self, const at::Tensor& f, const at::Tensor& y, const OptionalTensor& w) {
             self->head.partial_fit(f, y, w.value_or(at::Tensor()));
           },
           "", {arg("features"), arg("y"), arg("sample_weight") = none})
      .def("remove",
           [](const Self& self, const at::Tensor& f, const at::Tensor& y, const OptionalTensor& w) {
             self->head.remove(f, y, w.value_or(at::Tensor()));
           },
           "", {arg("features"), arg("y"), arg("sample_weight") = none})
      .def("merge", [](const Self& self, const Self& other) { self->head.merge(other->head); })
      .def("reset", [](const Self& self) { self->head.reset(); })
      .def("solve", [](const Self& self, double alpha) { return to_script(self->head.solve(alpha)); })
      .def("path",
           [](const Self& self, const std::vector<double>& alphas) {
             std::vector<Solution> path;
             for (const auto& solution : self->head.path(alphas)) {
               path.push_back(to_script(solution));
             }
             return path;
           })
      .def("leave_one_out",
           [](const Self& self, const std::vector<double>& alphas, const at::Tensor& f, const at::Tensor& y,
              const OptionalTensor& w) {
             return self->head.leave_one_out(alphas, f, y, w.value_or(at::Tensor()));
           },
           "", {arg("alphas"), arg("features"), arg("y"), arg("sample_weight") = none})
      .def("state", [](const Self& self) { return to_script(self->head.state()); })
      .def("load_state",
           [](const Self& self, const ScriptState& state) {
             self->head.load_state(from_script(std::get<0>(state), std::get<1>(state)));
           })
      .def_pickle([](const Self& self) { return saved(*self); },
                  [](const SavedHead& state) { return restored(state); });
}

const auto ridge_head = ridge_head_class();

}  // namespace
}  // namespace torchbcd
