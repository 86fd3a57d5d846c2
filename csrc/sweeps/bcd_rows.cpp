// Rows of BCD with their split variables: where they start, and the objective at them.
#include <algorithm>

#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/bcd.h"

namespace torchbcd {

BcdVariables BcdVariables::narrow(int64_t begin, int64_t size) const {
  const auto cut = [&](const std::vector<at::Tensor>& whole) {
    std::vector<at::Tensor> part;
    part.reserve(whole.size());
    for (const at::Tensor& t : whole) {
      part.push_back(t.narrow(0, begin, size));
    }
    return part;
  };
  return {cut(u), cut(v), cut(residual)};
}

BcdVariables BcdVariables::allocate(int64_t rows, const std::vector<AffineMap>& maps,
                                    const RowStorage& storage, const std::string& set) {
  const auto states = [&](const char* name) {
    return allocate_states(rows, maps, /*with_last=*/true, storage, set + name);
  };
  return {states("U"), states("V"), states("residual")};
}

void forward_pass(const BcdProblem& problem, const std::vector<AffineMap>& maps, BcdRows& rows,
                  const std::vector<at::Tensor>& u, const std::vector<at::Tensor>& v) {
  const std::vector<functors::AnyActivation> activations = activations_at(problem.activations, maps);
  for (size_t l = 0; l < problem.depth(); ++l) {
    const at::Tensor& auxiliary = rows.current.u[l];
    const at::Tensor& state = rows.current.v[l];
    if (u.empty()) {
      affine_out(rows.input(l), maps[l], auxiliary);
      add_skipped_(problem.skips, l, rows.x, rows.current.u, rows.current.v, auxiliary);
    } else {
      auxiliary.copy_(u[l]);
    }
    if (v.empty()) {
      passes::activation(auxiliary, activations[l], state);
      project_(problem.options.state_regularizer()[l], state);
    } else {
      state.copy_(v[l]);
    }
    rows.current.residual[l].zero_();
  }
  // Without u, U is what the maps give of V, whatever V is.
  rows.residuals = u.empty() ? Residuals::kCurrent : Residuals::kStale;
}

void refresh_residuals(const BcdProblem& problem, const std::vector<AffineMap>& maps, BcdRows& rows) {
  const size_t end = rows.residuals == Residuals::kStale         ? maps.size()
                     : rows.residuals == Residuals::kAllButFirst ? 1
                                                                 : 0;
  // By the same chunks as a sweep, so that looking at the objective changes no bit of what follows.
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const BcdVariables chunk = rows.current.narrow(begin, size);
    for (size_t l = 0; l < end; ++l) {
      const at::Tensor input = rows.input(l).narrow(0, begin, size);
      if (problem.options.splitting() == 2) {
        affine_out(input, maps[l], chunk.u[l]);
      } else {
        affine_residual_out(chunk.u[l], input, maps[l], chunk.residual[l]);
        add_skipped_(problem.skips, l, rows.x.narrow(0, begin, size), chunk.u, chunk.v, chunk.residual[l],
                     -1);
      }
    }
  });
  rows.residuals = Residuals::kCurrent;
}

ObjectiveTerms objective_terms(const BcdProblem& problem, const std::vector<AffineMap>& maps,
                               const BcdRows& rows, const BcdVariables& variables) {
  const BCDOptions& options = problem.options;
  const size_t depth = problem.depth();
  const std::vector<functors::AnyActivation> activations = activations_at(problem.activations, maps);
  ObjectiveTerms terms;
  for (std::vector<double>* part : {&terms.activation_penalty, &terms.affine_penalty, &terms.state_penalty}) {
    part->assign(depth, 0);
  }
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const BcdVariables chunk = variables.narrow(begin, size);
    for (size_t l = 0; l < depth; ++l) {
      const at::Tensor gap = passes::activation(chunk.u[l], activations[l]).sub_(chunk.v[l]);
      terms.activation_penalty[l] += options.gamma()[l] / 2 * norm_squared(gap);
      if (options.splitting() == 3) {
        terms.affine_penalty[l] += options.rho_of(l) / 2 * norm_squared(chunk.residual[l]);
      }
      if (const WeightRegularizer& regularizer = options.state_regularizer()[l]; !regularizer.proximal) {
        terms.state_penalty[l] += regularizer_value(regularizer.entries, chunk.v[l]);
      }
    }
    terms.loss += row_loss_weight(options, rows.population) * weighted_loss(rows.y.narrow(0, begin, size),
                                                                            chunk.v.back(), problem.loss,
                                                                            rows.row_weights(begin, size));
  });
  for (size_t l = 0; l < depth; ++l) {  // one's own are of all rows together, and of one process
    if (const WeightRegularizer& regularizer = options.state_regularizer()[l]; regularizer.proximal) {
      terms.state_penalty[l] = regularizer_value(regularizer, variables.v[l]);
    }
  }
  add_up_over_rows(Totals(problem.sum_over_ranks, rows.x.device()), terms);
  for (size_t l = 0; l < depth; ++l) {
    const WeightRegularizer& regularizer = options.weight_regularizer()[l];
    const bool of_bias = options.regularize_bias() && maps[l].bias.defined();
    terms.weight_penalty.push_back(regularizer_value(regularizer, maps[l].weight) +
                                   (of_bias ? regularizer_value(regularizer.entries, maps[l].bias) : 0));
  }
  return terms;
}

}  // namespace torchbcd
