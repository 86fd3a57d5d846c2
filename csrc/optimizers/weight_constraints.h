// Whether regularisers fit the net: inputs that there are, what monotone nets need, and one's own.
#pragma once

#include <string>

#include "optimizers/trained_mlp.h"
#include "torchbcd/per_layer.h"
#include "torchbcd/weight_regularizers.h"

namespace torchbcd {

/// What one whose entries' part is right is told for the rest of it; empty where that is right, too.
std::string complaint_of(const WeightRegularizer& regularizer);

/// Throws a ValueError, with the layer, where one names an input that the layer has not; or where the net is
/// to be monotone in inputs of a layer and that layer or a later one has an activation that falls somewhere,
/// or a later one's weights may be negative, or its frozen ones are outside what they have to be; or where
/// one is one's own, unless the method `takes_proximal`.
void check_weight_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers,
                               bool takes_proximal);

/// Throws a ValueError, with the layer, where one is one's own, which nothing makes the same in every
/// process.
void check_same_in_processes(const char* optimizer, const char* option,
                             const PerLayer<WeightRegularizer>& regularizers);

/// Throws a ValueError, with the layer, where one is neither a sum over entries nor one's own; or where one
/// is one's own, unless V's blocks are quadratics and the last layer's loss is smooth.
void check_state_regularizers(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers,
                              int64_t splitting);

/// Whether weights that are trained are not within their constraints, at the last complete sweep.
bool is_outside(const TrainedMlp& mlp, const PerLayer<WeightRegularizer>& regularizers);

}  // namespace torchbcd
