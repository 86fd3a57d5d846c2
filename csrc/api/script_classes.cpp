// torch.classes.torchbcd: the optimizers as objects of TorchScript, which live in scripted modules, are saved
// with them and run without Python.
#include <torch/custom_class.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/optional_tensors.h"
#include "torchbcd/bcd.h"
#include "torchbcd/dladmm.h"
#include "torchbcd/dlam.h"
#include "torchbcd/relaxed_bcd.h"

namespace torchbcd {
namespace {

using ScriptTensors = c10::Dict<std::string, OptionalTensors>;
using ScriptOptions = c10::Dict<std::string, std::vector<double>>;
// What a saved object holds: the model's tensors, which stay the module's own; activations; loss; options;
// bound data with their split variables; whether inputs are flattened.
using Saved = std::tuple<std::vector<at::Tensor>, OptionalTensors, std::vector<std::string>, std::string,
                         ScriptOptions, ScriptTensors, bool>;

ScriptTensors to_script(const Tensors& tensors) {
  ScriptTensors script;
  for (const auto& [name, list] : tensors) {
    script.insert(name, to_optional(list));
  }
  return script;
}

Tensors from_script(const ScriptTensors& script) {
  Tensors tensors;
  for (const auto& item : script) {
    tensors[item.key()] = from_optional(item.value());
  }
  return tensors;
}

/// One of the optimizers.
template <typename Optimizer, typename Options>
class Script : public torch::CustomClassHolder {
 public:
  Script(std::vector<at::Tensor> weights, const OptionalTensors& biases,
         const std::vector<std::string>& activations, const std::string& loss, const ScriptOptions& options,
         bool flatten)
      : optimizer(mlp_of(std::move(weights), biases, activations, flatten), Options().loss(loss)) {
    for (const auto& item : options) {
      optimizer.set_option(item.key(), item.value());
    }
  }

  Saved saved() {
    const Mlp& mlp = optimizer.mlp();
    std::vector<std::string> activations;
    for (const Activation& activation : mlp.activations) {
      activations.push_back(activation.text());
    }
    ScriptOptions options;
    for (const std::string& name : optimizer.option_names()) {
      options.insert(name, optimizer.option(name));
    }
    return {mlp.weights, to_optional(mlp.biases),        activations, optimizer.loss(),
            options,     to_script(optimizer.tensors()), mlp.flatten};
  }

  static c10::intrusive_ptr<Script> restored(Saved saved) {
    auto& [weights, biases, activations, loss, options, tensors, flatten] = saved;
    auto script = c10::make_intrusive<Script>(weights, biases, activations, loss, options, flatten);
    script->optimizer.load_tensors(from_script(tensors));
    return script;
  }

  Optimizer optimizer;

  // The tensors of step(x, y): both or neither.
  static bool is_batch(const std::optional<at::Tensor>& x, const std::optional<at::Tensor>& y,
                       const std::optional<at::Tensor>& sample_weight = std::nullopt) {
    TORCH_CHECK_VALUE(x.has_value() || !sample_weight.has_value(),
                      "torchbcd: the sample_weight of bound rows is given to bind (got one in step)");
    TORCH_CHECK_VALUE(x.has_value() == y.has_value(),
                      "torchbcd: step needs both inputs and targets, or neither");
    return x.has_value();
  }

 private:
  static Mlp mlp_of(std::vector<at::Tensor> weights, const OptionalTensors& biases,
                    const std::vector<std::string>& activations, bool flatten) {
    Mlp mlp{std::move(weights), from_optional(biases), {}, flatten};
    for (const std::string& text : activations) {
      mlp.activations.push_back(Activation::parse(text));
    }
    return mlp;
  }
};

using OptionalTensor = std::optional<at::Tensor>;
const c10::IValue kNone;

/// The class with what all optimizers have. Their own `step`, `bind` and reports follow.
template <typename S>
torch::class_<S> script_class(const char* name) {
  using torch::arg;
  using Self = c10::intrusive_ptr<S>;
  torch::class_<S> script("torchbcd", name);
  if constexpr (requires(decltype(S::optimizer)& optimizer, at::Tensor t) { optimizer.bind(t, t, t); }) {
    script.def(
        "bind",
        [](const Self& self, const at::Tensor& x, const at::Tensor& y, const OptionalTensor& sample_weight) {
          self->optimizer.bind(x, y, sample_weight.value_or(at::Tensor()));
        },
        "", {arg("x"), arg("y"), arg("sample_weight") = kNone});
  } else {
    script.def("bind", [](const Self& self, const at::Tensor& x, const at::Tensor& y) {
      self->optimizer.bind(x, y);
    });
  }
  return script
      .def(torch::init<std::vector<at::Tensor>, OptionalTensors, std::vector<std::string>, std::string,
                       ScriptOptions, bool>(),
           "",
           {arg("weights"), arg("biases"), arg("activations"), arg("loss"), arg("options"),
            arg("flatten") = false})
      .def("sweeps", [](const Self& self) { return self->optimizer.sweeps(); })
      .def("bound", [](const Self& self) { return self->optimizer.bound(); })
      .def("objective", [](const Self& self) { return self->optimizer.objective(); })
      .def("option_names", [](const Self& self) { return self->optimizer.option_names(); })
      .def("option",
           [](const Self& self, const std::string& option) { return self->optimizer.option(option); })
      .def("set_option",
           [](const Self& self, const std::string& option, const std::vector<double>& values) {
             self->optimizer.set_option(option, values);
           })
      .def("state", [](const Self& self) { return to_script(self->optimizer.tensors()); })
      .def("load_state", [](const Self& self,
                            const ScriptTensors& state) { self->optimizer.load_tensors(from_script(state)); })
      .def_pickle([](const Self& self) { return self->saved(); },
                  [](Saved saved) { return S::restored(std::move(saved)); });
}

using ScriptBCD = Script<BCD, BCDOptions>;
const auto bcd_class =
    script_class<ScriptBCD>("BCD")
        .def("step",
             [](const c10::intrusive_ptr<ScriptBCD>& self, const OptionalTensor& x, const OptionalTensor& y,
                const OptionalTensor& sample_weight) {
               if (ScriptBCD::is_batch(x, y, sample_weight)) {
                 self->optimizer.step(*x, *y, sample_weight.value_or(at::Tensor()));
               } else {
                 self->optimizer.step();
               }
             },
             "",
             {torch::arg("inputs") = kNone, torch::arg("targets") = kNone,
              torch::arg("sample_weight") = kNone})
        .def("step_rows", [](const c10::intrusive_ptr<ScriptBCD>& self,
                             const at::Tensor& index) { self->optimizer.step_rows(index); })
        .def("variables", [](const c10::intrusive_ptr<ScriptBCD>& self) {
          const BCD::Variables v = self->optimizer.variables();
          return to_script({{"W", v.W}, {"b", v.b}, {"U", v.U}, {"V", v.V}});
        });

using ScriptRelaxedBCD = Script<RelaxedBCD, RelaxedBCDOptions>;
// L before and after, the penalties, and how far each block lowered L, in the order of the sweep.
c10::Dict<std::string, std::vector<double>> certificate(const RelaxedReport& report) {
  const double before = report.before.value();
  double after = before;
  std::vector<double> decreases;
  for (const BlockDecrease& block : report.decreases) {
    decreases.push_back(block.decrease.value());
    after -= decreases.back();
  }
  c10::Dict<std::string, std::vector<double>> result;
  result.insert("before", std::vector<double>{before});
  result.insert("after", std::vector<double>{after});
  result.insert("penalties", report.penalties);
  result.insert("decreases", decreases);
  return result;
}
const auto relaxed_class = script_class<ScriptRelaxedBCD>("RelaxedBCD")
                               .def("step",
                                    [](const c10::intrusive_ptr<ScriptRelaxedBCD>& self,
                                       const OptionalTensor& x, const OptionalTensor& y) {
                                      if (ScriptRelaxedBCD::is_batch(x, y)) {
                                        self->optimizer.step(*x, *y);
                                      } else {
                                        self->optimizer.step();
                                      }
                                    },
                                    "", {torch::arg("inputs") = kNone, torch::arg("targets") = kNone})
                               .def("certificate", [](const c10::intrusive_ptr<ScriptRelaxedBCD>& self) {
                                 return certificate(self->optimizer.report());
                               });

using ScriptDLAM = Script<DLAM, DLAMOptions>;
const auto dlam_class =
    script_class<ScriptDLAM>("DLAM")
        .def("step",
             [](const c10::intrusive_ptr<ScriptDLAM>& self, const OptionalTensor& x, const OptionalTensor& y,
                std::optional<int64_t> sweeps, const OptionalTensor& sample_weight) {
               if (ScriptDLAM::is_batch(x, y, sample_weight)) {
                 self->optimizer.step(*x, *y, sweeps, sample_weight.value_or(at::Tensor()));
               } else {
                 self->optimizer.step();
               }
             },
             "",
             {torch::arg("inputs") = kNone, torch::arg("targets") = kNone, torch::arg("sweeps") = kNone,
              torch::arg("sample_weight") = kNone})
        .def("gap", [](const c10::intrusive_ptr<ScriptDLAM>& self) { return self->optimizer.gap(); })
        .def("variables", [](const c10::intrusive_ptr<ScriptDLAM>& self) {
          const DLAM::Variables v = self->optimizer.variables();
          return to_script({{"W", v.W}, {"b", v.b}, {"z", v.z}, {"a", v.a}});
        });

using ScriptDLADMM = Script<DLADMM, DLADMMOptions>;
const auto dladmm_class = script_class<ScriptDLADMM>("DLADMM").def(
    "step", [](const c10::intrusive_ptr<ScriptDLADMM>& self) { self->optimizer.step(); });

}  // namespace
}  // namespace torchbcd
