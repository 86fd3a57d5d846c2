// torch.classes.torchbcd: the optimizers as objects of TorchScript, which live in scripted modules, are saved
// with them and run without Python.
#include <torch/custom_class.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "doors/optional_tensors.h"
#include "doors/script_state.h"
#include "torchbcd/bcd.h"
#include "torchbcd/dladmm.h"
#include "torchbcd/dlam.h"
#include "torchbcd/relaxed_bcd.h"

namespace torchbcd {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using ScriptNames = c10::Dict<std::string, std::string>;
// What a saved object holds: the model's tensors, which stay the module's own; activations; loss; options
// that are numbers and options that are names; state; whether inputs are flattened; skips, as
// (from, to, whether it is V).
using ScriptSkips = std::vector<std::tuple<int64_t, int64_t, bool>>;
using Saved = std::tuple<std::vector<at::Tensor>, OptionalTensors, std::vector<std::string>, std::string,
                         ScriptNumbers, ScriptNames, ScriptTensors, ScriptNumbers, bool, ScriptSkips>;

/// One of the optimizers.
template <typename Optimizer, typename Options>
class Script : public torch::CustomClassHolder {
 public:
  Script(std::vector<at::Tensor> weights, const OptionalTensors& biases,
         const std::vector<std::string>& activations, const std::string& loss, const ScriptNumbers& options,
         bool flatten, const ScriptNames& choices, const ScriptSkips& skips, const OptionalTensors& scales,
         const OptionalTensors& shifts, const OptionalTensors& slopes)
      : optimizer(mlp_of({std::move(weights), from_optional(biases)},
                         {from_optional(scales), from_optional(shifts), from_optional(slopes)}, activations,
                         flatten, skips),
                  Options().loss(loss)) {
    std::map<std::string, std::vector<double>> numbers;
    std::map<std::string, std::string> names;
    for (const auto& item : options) {
      numbers[item.key()] = item.value();
    }
    for (const auto& item : choices) {
      names[item.key()] = item.value();
    }
    optimizer.set_options(numbers, names);
  }

  Saved saved() {
    const Mlp& mlp = optimizer.mlp();
    std::vector<std::string> activations;
    for (const Activation& activation : mlp.activations) {
      activations.push_back(activation.text());
    }
    ScriptNumbers options;
    for (const std::string& name : optimizer.option_names()) {
      options.insert(name, optimizer.option(name));
    }
    ScriptNames choices;
    for (const std::string& name : optimizer.choice_names()) {
      choices.insert(name, optimizer.choice(name));
    }
    auto [tensors, numbers] = to_script(optimizer.state());
    for (const auto& [key, list] :
         {std::pair{kScales, &mlp.scales}, {kShifts, &mlp.shifts}, {kSlopes, &mlp.slopes}}) {
      if (!list->empty()) {
        tensors.insert(key, to_optional(*list));
      }
    }
    ScriptSkips skips;
    for (const auto& [from, to, activated] : mlp.skips) {
      skips.emplace_back(from, to, activated);
    }
    return {mlp.weights, to_optional(mlp.biases),
            activations, optimizer.loss(),
            options,     choices,
            tensors,     numbers,
            mlp.flatten, skips};
  }

  static c10::intrusive_ptr<Script> restored(Saved saved) {
    auto& [weights, biases, activations, loss, options, choices, tensors, numbers, flatten, skips] = saved;
    const auto taken = [of = tensors](const char* key) {
      const auto found = of.find(key);
      return found == of.end() ? OptionalTensors() : found->value();
    };
    auto script = c10::make_intrusive<Script>(weights, biases, activations, loss, options, flatten, choices,
                                              skips, taken(kScales), taken(kShifts), taken(kSlopes));
    for (const char* key : {kScales, kShifts, kSlopes}) {
      static_cast<void>(tensors.erase(key));
    }
    script->optimizer.load_state(from_script(tensors, numbers));
    return script;
  }

  Optimizer optimizer;

 private:
  // Beside the state in what is saved: the parameters of maps, of a model that has any.
  static constexpr const char* kScales = "model's scales";
  static constexpr const char* kShifts = "model's shifts";
  static constexpr const char* kSlopes = "model's slopes";

  static Mlp mlp_of(std::array<std::vector<at::Tensor>, 2> affine,
                    std::array<std::vector<at::Tensor>, 3> of_maps,
                    const std::vector<std::string>& activations, bool flatten, const ScriptSkips& skips) {
    Mlp mlp;
    mlp.weights = std::move(affine[0]);
    mlp.biases = std::move(affine[1]);
    mlp.scales = std::move(of_maps[0]);
    mlp.shifts = std::move(of_maps[1]);
    mlp.slopes = std::move(of_maps[2]);
    mlp.flatten = flatten;
    for (const auto& [from, to, activated] : skips) {
      mlp.skips.push_back({from, to, activated});
    }
    const auto trains = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
    for (const auto* list : {&mlp.weights, &mlp.biases, &mlp.scales, &mlp.shifts, &mlp.slopes}) {
      mlp.can_be_frozen = mlp.can_be_frozen || std::any_of(list->begin(), list->end(), trains);
    }
    for (const std::string& text : activations) {
      mlp.activations.push_back(Activation::parse(text));
    }
    return mlp;
  }
};

const c10::IValue kNone;

// Whether step was given a mini-batch: inputs and targets, or neither.
bool is_batch(const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& sample_weight) {
  TORCH_CHECK_VALUE(x.has_value() || !sample_weight.has_value(),
                    "torchbcd: the sample_weight of bound rows is given to bind (got one in step)");
  TORCH_CHECK_VALUE(x.has_value() == y.has_value(),
                    "torchbcd: step needs both inputs and targets, or neither");
  return x.has_value();
}

/// The class with what all optimizers have. Their own `bind`, `step` and reports follow.
template <typename S>
torch::class_<S> script_class(const char* name) {
  using torch::arg;
  using Self = c10::intrusive_ptr<S>;
  return torch::class_<S>("torchbcd", name)
      .def(torch::init<std::vector<at::Tensor>, OptionalTensors, std::vector<std::string>, std::string,
                       ScriptNumbers, bool, ScriptNames, ScriptSkips, OptionalTensors, OptionalTensors,
                       OptionalTensors>(),
           "",
           {arg("weights"), arg("biases"), arg("activations"), arg("loss"), arg("options"),
            arg("flatten") = false, arg("choices") = ScriptNames(), arg("skips") = ScriptSkips(),
            arg("scales") = OptionalTensors(), arg("shifts") = OptionalTensors(),
            arg("slopes") = OptionalTensors()})
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
      .def("choice_names", [](const Self& self) { return self->optimizer.choice_names(); })
      .def("choice",
           [](const Self& self, const std::string& option) { return self->optimizer.choice(option); })
      .def("set_choice", [](const Self& self, const std::string& option,
                            const std::string& value) { self->optimizer.set_choice(option, value); })
      .def("set_process_group",
           [](const Self& self, const std::string& group, int64_t rank) {
             self->optimizer.set_process_group(group, rank);
           },
           "", {arg("group"), arg("rank") = -1})
      .def("bytes_sent", [](const Self& self) { return self->optimizer.bytes_sent(); })
      .def("joined_targets",
           [](const Self& self, const std::vector<at::Tensor>& y) {
             return self->optimizer.joined_targets(y);
           })
      .def("state", [](const Self& self) { return to_script(self->optimizer.state()); })
      .def("load_state",
           [](const Self& self, const ScriptState& state) {
             self->optimizer.load_state(from_script(std::get<0>(state), std::get<1>(state)));
           })
      .def_pickle([](const Self& self) { return self->saved(); },
                  [](Saved saved) { return S::restored(std::move(saved)); });
}

/// bind(x, y, sample_weight=None).
template <typename S>
torch::class_<S>& def_bind(torch::class_<S>& script) {
  return script.def("bind",
                    [](const c10::intrusive_ptr<S>& self, const at::Tensor& x, const at::Tensor& y,
                       const OptionalTensor& sample_weight) {
                      self->optimizer.bind(x, y, sample_weight.value_or(at::Tensor()));
                    },
                    "", {torch::arg("x"), torch::arg("y"), torch::arg("sample_weight") = kNone});
}

/// bind(x, y, sample_weight=None), and what the two variables of these names start from.
template <typename S>
torch::class_<S>& def_bind(torch::class_<S>& script, const char* first, const char* second) {
  using States = std::vector<at::Tensor>;
  return script.def("bind",
                    [](const c10::intrusive_ptr<S>& self, const at::Tensor& x, const at::Tensor& y,
                       const OptionalTensor& sample_weight, const States& one, const States& other) {
                      self->optimizer.bind(x, y, sample_weight.value_or(at::Tensor()), one, other);
                    },
                    "",
                    {torch::arg("x"), torch::arg("y"), torch::arg("sample_weight") = kNone,
                     torch::arg(first) = States(), torch::arg(second) = States()});
}

using ScriptBCD = Script<BCD, BCDOptions>;
using ScriptRelaxedBCD = Script<RelaxedBCD, RelaxedBCDOptions>;
using ScriptDLAM = Script<DLAM, DLAMOptions>;
using ScriptDLADMM = Script<DLADMM, DLADMMOptions>;

auto bcd_class() {
  using Self = c10::intrusive_ptr<ScriptBCD>;
  auto script = script_class<ScriptBCD>("BCD");
  return def_bind(script, "u", "v")
      .def("step",
           [](const Self& self, const OptionalTensor& x, const OptionalTensor& y,
              const OptionalTensor& sample_weight) {
             if (is_batch(x, y, sample_weight)) {
               self->optimizer.step(*x, *y, sample_weight.value_or(at::Tensor()));
             } else {
               self->optimizer.step();
             }
           },
           "",
           {torch::arg("inputs") = kNone, torch::arg("targets") = kNone, torch::arg("sample_weight") = kNone})
      .def("step_rows", [](const Self& self, const at::Tensor& index) { self->optimizer.step_rows(index); })
      .def("variables", [](const Self& self) {
        const BCD::Variables v = self->optimizer.variables();
        return to_script(Tensors{{"W", v.W}, {"b", v.b}, {"U", v.U}, {"V", v.V}});
      });
}

// L before and after, the penalties, and how far each block lowered L, in the order of the sweep.
ScriptNumbers certificate(const RelaxedReport& report) {
  const double before = report.before.value();
  double after = before;
  std::vector<double> decreases;
  for (const BlockDecrease& block : report.decreases) {
    decreases.push_back(block.decrease.value());
    after -= decreases.back();
  }
  ScriptNumbers result;
  result.insert("before", std::vector<double>{before});
  result.insert("after", std::vector<double>{after});
  result.insert("penalties", report.penalties);
  result.insert("decreases", decreases);
  return result;
}

auto relaxed_class() {
  using Self = c10::intrusive_ptr<ScriptRelaxedBCD>;
  auto script = script_class<ScriptRelaxedBCD>("RelaxedBCD");
  return def_bind(script)
      .def("step",
           [](const Self& self, const OptionalTensor& x, const OptionalTensor& y,
              const OptionalTensor& sample_weight) {
             if (is_batch(x, y, sample_weight)) {
               self->optimizer.step(*x, *y, sample_weight.value_or(at::Tensor()));
             } else {
               self->optimizer.step();
             }
           },
           "",
           {torch::arg("inputs") = kNone, torch::arg("targets") = kNone, torch::arg("sample_weight") = kNone})
      .def("certificate", [](const Self& self) { return certificate(self->optimizer.report()); });
}

auto dlam_class() {
  using Self = c10::intrusive_ptr<ScriptDLAM>;
  auto script = script_class<ScriptDLAM>("DLAM");
  return def_bind(script, "z", "a")
      .def("step",
           [](const Self& self, const OptionalTensor& x, const OptionalTensor& y,
              std::optional<int64_t> sweeps, const OptionalTensor& sample_weight) {
             if (is_batch(x, y, sample_weight)) {
               self->optimizer.step(*x, *y, sweeps, sample_weight.value_or(at::Tensor()));
             } else {
               self->optimizer.step();
             }
           },
           "",
           {torch::arg("inputs") = kNone, torch::arg("targets") = kNone, torch::arg("sweeps") = kNone,
            torch::arg("sample_weight") = kNone})
      .def("gap", [](const Self& self) { return self->optimizer.gap(); })
      .def("variables", [](const Self& self) {
        const DLAM::Variables v = self->optimizer.variables();
        return to_script(Tensors{{"W", v.W}, {"b", v.b}, {"z", v.z}, {"a", v.a}});
      });
}

auto dladmm_class() {
  auto script = script_class<ScriptDLADMM>("DLADMM");
  return def_bind(script).def("step",
                              [](const c10::intrusive_ptr<ScriptDLADMM>& self) { self->optimizer.step(); });
}

const auto classes = std::make_tuple(bcd_class(), relaxed_class(), dlam_class(), dladmm_class());

}  // namespace
}  // namespace torchbcd
