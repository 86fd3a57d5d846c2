#include "optimizers/weight_constraints.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <variant>

#include "blocks/weight_terms.h"

namespace torchbcd {

void check_weight_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers) {
  size_t monotone_from = mlp.depth();
  for (size_t l = 0; l < mlp.depth(); ++l) {
    const WeightRegularizer& r = regularizers[l];
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

bool is_outside(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers) {
  for (size_t l = 0; l < mlp.depth(); ++l) {
    if (mlp.trained[l].weight && !is_inside(regularizers[l], mlp.committed[l].weight)) {
      return true;
    }
  }
  return false;
}

}  // namespace torchbcd
