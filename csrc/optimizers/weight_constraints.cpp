#include "optimizers/weight_constraints.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <variant>
#include <vector>

#include "blocks/proximal_gradient.h"
#include "blocks/weight_terms.h"

namespace torchbcd {
namespace {

// What one with a term of one's own is told.
std::string complaint_of_proximal(const WeightRegularizer& r) {
  const ProximalTerm& term = *r.proximal;
  WeightRegularizer rest = r;
  rest.proximal = nullptr;
  if (!rest.quadratic()) {
    return c10::str("must have nothing but a squared norm beside '", term.name,
                    "', whose sum with anything else has no known prox");
  }
  if (term.name.empty() || !term.prox || !term.value) {
    return c10::str("must have a name, a prox and a value (got ", term.prox ? "a" : "no", " prox and ",
                    term.value ? "a" : "no", " value for '", term.name, "')");
  }
  return {};
}

}  // namespace

// Norms and bounds share a closed form where the bounds are at zero alone, norms of columns and of rows none.
std::string complaint_of(const WeightRegularizer& r) {
  if (r.proximal) {
    return complaint_of_proximal(r);
  }
  const auto weight = [](double x) { return std::isfinite(x) && x >= 0; };
  if (!weight(r.by_input) || !weight(r.by_unit)) {
    return c10::str("must have finite weights >= 0 (got ", r.by_input, " by input and ", r.by_unit,
                    " by unit)");
  }
  if (!(r.radius > 0 && r.l1_radius > 0)) {
    return c10::str("must have a radius > 0 (got ", std::min(r.radius, r.l1_radius), ")");
  }
  const bool of_units = r.of_rows() || r.bounds_sums();
  if (r.by_input != 0 && of_units) {
    return "must not have norms both by input and by unit: their sum has no closed form";
  }
  if (r.of_rows() && r.bounds_sums()) {
    return "must not bound 1-norms of units beside their 2-norms, which have no prox together in closed form";
  }
  const auto at_zero = [](double end) { return end == 0 || std::isinf(end); };
  if ((r.by_input != 0 || of_units) && !(at_zero(r.entries.low) && at_zero(r.entries.high))) {
    return c10::str("must have bounds at 0 alone beside norms (got ", r.entries.low, " and ", r.entries.high,
                    ")");
  }
  for (const std::vector<int64_t>* inputs : {&r.nonnegative, &r.nonpositive}) {
    for (const int64_t j : *inputs) {
      if (j < 0) {
        return c10::str("must have inputs >= 0 (got ", j, ")");
      }
    }
  }
  for (const int64_t j : r.nonnegative) {
    if (std::find(r.nonpositive.begin(), r.nonpositive.end(), j) != r.nonpositive.end()) {
      return c10::str("must have one sign for an input (got two for input ", j, ")");
    }
  }
  return {};
}

void check_same_in_processes(const char* optimizer, const char* option,
                             const PerLayer<WeightRegularizer>& regularizers) {
  for (size_t l = 0; l < regularizers.values().size(); ++l) {
    const auto& term = regularizers[l].proximal;
    TORCH_CHECK_VALUE(!term, optimizer, ": a process_group needs ", option,
                      "s that are the same in every process, which nothing tells of one's own (got '",
                      term->name, "' in layer ", l + 1, ")");
  }
}

void check_weight_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers,
                               bool takes_proximal) {
  size_t monotone_from = mlp.depth();
  for (size_t l = 0; l < mlp.depth(); ++l) {
    const WeightRegularizer& r = regularizers[l];
    TORCH_CHECK_VALUE(takes_proximal || !r.proximal, mlp.name,
                      ": a weight_regularizer of one's own is for BCD and RelaxedBCD (got '",
                      r.proximal->name, "' in layer ", l + 1, ")");
    const int64_t inputs = mlp.parameters[l].weight.size(1);
    for (const auto* columns : {&r.nonnegative, &r.nonpositive}) {
      for (const int64_t j : *columns) {
        TORCH_CHECK_VALUE(j < inputs, mlp.name, ": weight_regularizer of layer ", l + 1,
                          " must name inputs below ", inputs, ", which the layer has (got ", j, ")");
      }
    }
    monotone_from = r.monotone ? std::min(monotone_from, l) : monotone_from;
    if (l < monotone_from) {
      continue;
    }
    std::visit(
        [&](const auto& f) {
          TORCH_CHECK_VALUE(f.monotone(), mlp.name,
                            ": a monotone net must have activations that never fall (got '", f.name,
                            "' in layer ", l + 1, ", which with these parameters does)");
        },
        mlp.activations[l]);
    TORCH_CHECK_VALUE(mlp.mlp.activations[l].normalization.none(), mlp.name,
                      ": a monotone net must have no LayerNorm (got one in layer ", l + 1,
                      "), in which a unit falls where another one grows");
    TORCH_CHECK_VALUE(
        !mlp.parameters[l].slope.defined(), mlp.name,
        ": a monotone net must have no slope that is trained, which may fall below 0 (got one in "
        "layer ",
        l + 1, ")");
    TORCH_CHECK_VALUE(
        l == monotone_from || r.entries.low >= 0, mlp.name,
        ": a monotone net must have weights >= 0 after its first layer (got a weight_regularizer of "
        "layer ",
        l + 1, " with the lower bound ", r.entries.low, ")");
    TORCH_CHECK_VALUE(
        mlp.trained[l].weight || is_inside(r, mlp.committed[l].weight), mlp.name,
        ": a monotone net must have frozen weights of the signs that it needs (got others in layer ", l + 1,
        ")");
  }
}

void check_state_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers,
                              int64_t splitting) {
  for (size_t l = 0; l < mlp.depth(); ++l) {
    const WeightRegularizer& s = regularizers[l];
    TORCH_CHECK_VALUE(s.of_entries() || s.proximal, mlp.name,
                      ": state_regularizer must be a sum over entries, or one's own (layer ", l + 1,
                      " has another one)");
    if (!s.proximal) {
      continue;
    }
    const auto needs = [&](bool holds, const char* what) {
      TORCH_CHECK_VALUE(holds, mlp.name, ": a state_regularizer of one's own needs ", what, " (got '",
                        s.proximal->name, "' in layer ", l + 1, ")");
    };
    needs(splitting == 3, "splitting 3, where its block is a quadratic");
    needs(l + 1 < mlp.depth() || has_lipschitz_gradient(mlp.loss),
          "in the last layer a loss with a Lipschitz gradient: squared, huber, logistic, "
          "binary_cross_entropy or cross_entropy");
  }
}

bool is_outside(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers) {
  for (size_t l = 0; l < mlp.depth(); ++l) {
    if (mlp.trained[l].weight && !is_inside(regularizers[l], mlp.committed[l].weight)) {
      return true;
    }
  }
  return false;
}

}  // namespace torchbcd
