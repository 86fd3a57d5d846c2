// Where a sweep of RelaxedBCD starts, and what is made sure of after it.
#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "blocks/input_metric.h"
#include "blocks/output_scale.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"
#include "optimizers/relaxed_data.h"
#include "optimizers/weight_constraints.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

constexpr int kGuardHalvings = 10;

}  // namespace

// Where a sweep starts: at the model's weights W, or, with momentum or decay, at (1 - decay) W + momentum D
// with the last step D; where that, or W itself, is outside a layer's constraints, at the nearest weight
// within.
void RelaxedBCD::set_start(bool batch) {
  Data& d = *data_;
  const RelaxedRows& rows = batch ? d.batch : d.bound;
  d.start_apart = d.has_momentum();
  if (!d.start_apart) {
    d.velocity.clear();
  }
  d.outside = is_outside(*mlp_, d.options.weight_regularizer());
  d.start_apart = d.start_apart || d.outside;
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    d.start_apart = d.start_apart || d.options.weight_decay_of(l, rows.classes) > 0;
  }
  if (!d.start_apart) {
    return;
  }
  if (d.start_storage.empty()) {
    d.start_storage = allocate_like(mlp_->committed);
  }
  for (size_t l = 0; l < mlp_->depth(); ++l) {
    const AffineMap& from = mlp_->committed[l];
    const AffineMap& start = d.start_storage[l];
    const Trained trained = mlp_->trained[l];
    const double decay = d.options.weight_decay_of(l, rows.classes);
    const bool centred = l == 0 && *d.standardize;
    copy_scaled(from, trained.weight && !centred ? 1 - decay : 1, start);
    if (trained.weight && centred) {
      shrink_centred_({start.weight, trained.bias ? start.bias : at::Tensor()}, decay, rows.x,
                      rows.totals(mlp_->sum_over_ranks));
    }
    if (!d.velocity.empty()) {
      add_map_(trained_part(start, trained), trained_part(d.velocity[l], trained), d.options.momentum_of(l));
    }
    if (trained.weight) {
      project_(d.options.weight_regularizer()[l], start.weight);
    }
  }
}

// An untrained net's outputs are as large as its inputs. The last layer is scaled first, since hidden layers
// that answer for outputs a thousand times too large would only learn to be silent.
bool RelaxedBCD::match_output_scale(bool batch) {
  Data& d = *data_;
  RelaxedRows& rows = batch ? d.batch : d.bound;
  const size_t last = mlp_->depth() - 1;
  if (!mlp_->trained[last].all_affine(mlp_->committed[last]) ||
      d.options.weight_regularizer()[last].constrains() || !skips_into(mlp_->mlp.skips, last).empty() ||
      !functors::is_identity(mlp_->activations[last])) {
    return false;
  }
  if (!d.start_apart) {
    d.start_storage = clone_maps(mlp_->committed);
  }
  const AffineMap& map = d.start_storage[last];
  if (!torchbcd::match_output_scale(rows.p[last], rows.y, mlp_->loss, map,
                                    rows.totals(mlp_->sum_over_ranks))) {
    return false;
  }
  affine_out(last == 0 ? rows.x : rows.v[last - 1], map, rows.p[last]);
  rows.v[last].copy_(rows.p[last]);
  d.start_apart = true;
  return true;
}

// The batch's true loss, through the sweep's own masks, at the new weights must not exceed that at the old
// ones: the step is halved until it
// does not, and dropped if nothing helps. After a forward pass with the old weights, rows.p has their
// outputs.
void RelaxedBCD::guard(bool forward_with_old) {
  const RelaxedRows& rows = *data_->last;
  const Totals totals = rows.totals(mlp_->sum_over_ranks);
  const auto loss_at = [&](const std::vector<AffineMap>& maps) {
    const std::vector<at::Tensor> products = allocate_states(rows.rows(), maps);
    const std::vector<at::Tensor> states = allocate_states(rows.rows(), maps);
    forward_out(rows.x, maps, data_->problem(*mlp_, data_->swept).state_maps(maps, rows.masks),
                mlp_->mlp.skips, products, states);
    return weighted_loss(rows.y, states.back(), mlp_->loss, rows.weights.weight);
  };
  const auto loss_before = [&] {
    return weighted_loss(rows.y, passes::activation(rows.p.back(), mlp_->activations.back()), mlp_->loss,
                         rows.weights.weight);
  };
  const std::vector<AffineMap>& next = mlp_->next;
  const std::vector<AffineMap>& old = data_->outside ? data_->start(*mlp_) : mlp_->committed;
  double before = forward_with_old ? loss_before() : loss_at(old);
  double after = loss_at(next);
  totals.add_up({&before, &after});
  for (int halving = 0; !(after <= before); ++halving) {
    ++data_->report.guard_halvings;
    for (size_t l = 0; l < mlp_->depth(); ++l) {
      const double weight = halving < kGuardHalvings ? 0.5 : 1.0;  // towards the old weights
      lerp_map_(next[l], old[l], weight);
      if (mlp_->trained[l].weight && weight < 1) {  // rounding may lead out
        project_(data_->options.weight_regularizer()[l], next[l].weight);
      }
    }
    if (halving == kGuardHalvings) {
      break;
    }
    after = totals.of(loss_at(next));
  }
}

}  // namespace torchbcd
