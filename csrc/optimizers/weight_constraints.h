// Whether regularisers of weights fit the net: inputs that there are, and what monotone nets need.
#pragma once

#include "optimizers/trained_mlp.h"
#include "torchbcd/per_layer.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// Throws a ValueError, with the layer, where one names an input that the layer has not; or where the net is
/// to be monotone in inputs of a layer and that layer or a later one has an activation that falls somewhere,
/// or a later one's weights may be negative, or its frozen ones are outside what they have to be.
void check_weight_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers);

}  // namespace torchbcd
