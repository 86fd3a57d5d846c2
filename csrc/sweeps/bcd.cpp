#include "sweeps/bcd.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>

#include "blocks/nonlinear_least_squares.h"
#include "kernels/passes.h"

namespace torchbcd {
namespace {

// The order of the blocks, which both algorithms share.
class BcdBlocks : public Blocks<BcdSweep> {
 public:
  explicit BcdBlocks(const BcdSweep& sweep) : Blocks(sweep), by_layer_(options_.order() == "paper") {}
  virtual ~BcdBlocks() = default;

  Residuals run() {
    const int64_t passes = options_.inner_sweeps();
    if (by_layer_) {
      for (size_t l = depth(); l-- > 0;) {
        for (int64_t pass = 0; pass < passes; ++pass) {
          state_blocks(l, sweep_.next_maps, pass);
        }
        update_weights(l, rows_.input(l));
      }
      return Residuals::kAllButFirst;
    }
    for (int64_t pass = 0; pass < passes; ++pass) {
      for (size_t l = depth(); l-- > 0;) {
        state_blocks(l, sweep_.maps, pass);
      }
    }
    for (size_t l = depth(); l-- > 0;) {
      update_weights(l, l == 0 ? rows_.x : rows_.next.v[l - 1]);
    }
    return Residuals::kStale;
  }

 protected:
  // The V block of a layer, and the U block where there is one. The first pass starts from the last sweep, a
  // further one from the pass before. `maps` are the weights of the layer after, at the time of the update.
  virtual void state_blocks(size_t l, const std::vector<AffineMap>& maps, int64_t pass) = 0;
  // W_l and b_l, what of them is trained, from the layer's inputs.
  virtual void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor& input) = 0;
  void update_weights(size_t l, const at::Tensor& input) {
    if (!frozen(l)) {
      weight_block(l, trained_layer(l, input), input);
      done("W", l);
    }
  }

  const BcdVariables& source(int64_t pass) const { return pass == 0 ? rows_.current : rows_.next; }

  // V_N of rows [begin, begin + size), from the centre of its quadratics in `v`.
  void output_loss(const at::Tensor& v, int64_t begin, int64_t size) {
    const size_t l = depth() - 1;
    passes::loss_update(rows_.y.narrow(0, begin, size), v, rows_.row_weights(begin, size), problem_.loss,
                        options_.state_regularizer()[l], row_loss_weight(options_, rows_.population),
                        options_.gamma()[l] + options_.alpha()[l], v);
  }

  const bool by_layer_;  // rather than all states first
};

// Algorithm 1. u[l] holds the product P_l = V_{l-1} W_l^T + 1 b_l^T here. Where sigma is the identity, both
// blocks are least squares with their closed form; otherwise they are solved iteratively, from the point of
// the sweep before, and never end above it.
class TwoSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  bool linear(size_t l) const { return std::holds_alternative<functors::Identity>(activation(l)); }

  // P_l, that V_l is predicted from, while the weights are still those of the last sweep. V_{l-1} moves
  // before only where all states do, after the first pass over them, and never where it is the data.
  const at::Tensor& product(size_t l, int64_t pass) const {
    return l == 0 || by_layer_ ? rows_.current.u[l] : source(pass).u[l];
  }

  void state_blocks(size_t l, const std::vector<AffineMap>& maps, int64_t pass) override {
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor previous = source(pass).v[l].clone();
    // V moves: what gamma/2 |V - sigma(P)|^2 and the proximal term have in common is its centre.
    passes::output_centre(previous, product(l, pass), activation(l), options_.gamma()[l], options_.alpha()[l],
                          v);
    if (l + 1 == depth()) {
      output_loss(v, 0, rows_.rows());
    } else {
      hidden_state(l, maps[l + 1], previous);
    }
    done("V", l);
  }

  void hidden_state(size_t l, const AffineMap& map, const at::Tensor& previous) {
    const std::string name = where("V", l);
    const Regularizer& regularizer = options_.state_regularizer()[l];
    const double curvature = options_.gamma()[l] + options_.alpha()[l];
    const double gamma = options_.gamma()[l + 1];
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor& target = rows_.next.v[l + 1];
    at::Tensor product = rows_.next.u[l + 1];
    if (linear(l + 1)) {
      const at::Tensor& residual = rows_.next.residual[l + 1];
      HiddenStateBlock(map, curvature, gamma, regularizer, rows_.rows(), name.c_str())
          .solve_(v, previous, target, residual);
      at::sub_out(product, target, residual);
      return;
    }
    const at::Tensor solution = previous;
    affine_out(solution, map, product);
    const at::Tensor offset = map.bias.defined() ? map.bias.unsqueeze(0) : map.bias;
    NonlinearLeastSquares{map.weight,        offset,      curvature,         gamma,
                          activation(l + 1), regularizer, map.weight.size(1)}
        .minimise_(solution, v, target, product, name.c_str());
    v.copy_(solution);
  }

  // What a frozen weight or bias adds to the layer's products, (d_l, n) or (d_l, 1); undefined: nothing.
  at::Tensor frozen_product(size_t l, const at::Tensor& input) const {
    const AffineMap& map = sweep_.maps[l];
    const Trained trained = problem_.trained[l];
    if (!trained.weight) {
      return at::mm(map.weight, input.t());
    }
    return map.bias.defined() && !trained.bias ? map.bias.unsqueeze(1) : at::Tensor();
  }

  void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor& input) override {
    const std::string name = where("W", l);
    const at::Tensor& target = rows_.next.v[l];
    const at::Tensor& predicted = product(l, /*pass=*/1);
    const double gamma = options_.gamma()[l];
    const double alpha = options_.alpha_weight_of(l);
    const Regularizer& regularizer = options_.weight_regularizer()[l];
    if (linear(l)) {
      at::Tensor residual = rows_.next.residual[l];
      at::sub_out(residual, target, predicted);
      WeightBlock(layer.input, layer.outputs(), layer.bias(), {gamma, alpha, alpha, regularizer},
                  /*always_primal=*/false, name.c_str())
          .solve(residual, layer.map, layer.next);
      return;
    }
    const at::Tensor ones = at::ones({layer.input.size(0), 1}, layer.input.options());
    const at::Tensor design = layer.bias() ? at::cat({layer.input, ones}, 1) : layer.input;
    const at::Tensor centre = joined(layer.map);
    const at::Tensor solution = centre.clone();
    NonlinearLeastSquares{design,      frozen_product(l, input), alpha, gamma, activation(l),
                          regularizer, layer.map.weight.size(1)}
        .minimise_(solution, centre, target.t(), predicted.t().clone(), name.c_str());
    split_out(solution, layer.next);
  }
};

// Algorithm 2.
class ThreeSplitting final : public BcdBlocks {
 public:
  using BcdBlocks::BcdBlocks;

 private:
  void state_blocks(size_t l, const std::vector<AffineMap>& maps, int64_t pass) override {
    if (l + 1 == depth()) {
      output_block(l, pass);
    } else {
      hidden_block(l, maps[l + 1], pass);
    }
    done("V", l);
    done("U", l);
  }

  // The U block of rows [begin, begin + size), once their V is in rows.next.
  void auxiliary_rows(size_t l, double alpha, int64_t pass, int64_t begin, int64_t size) {
    const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
    const at::Tensor u = cut(source(pass).u[l]);
    const at::Tensor residual = cut(source(pass).residual[l]);
    if (l == 0 && pass == 0 && rows_.residuals == Residuals::kAllButFirst) {
      affine_residual_out(u, cut(rows_.x), sweep_.maps[0], residual);
    }
    passes::auxiliary_update(cut(rows_.next.v[l]), u, residual, activation(l), options_.gamma()[l],
                             options_.rho_of(l), alpha, cut(rows_.next.u[l]), cut(rows_.next.residual[l]));
  }

  // V_N with its proximal term, then U_N without one.
  void output_block(size_t l, int64_t pass) {
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      passes::output_centre(cut(source(pass).v[l]), cut(source(pass).u[l]), activation(l),
                            options_.gamma()[l], options_.alpha()[l], v);
      output_loss(v, begin, size);
      auxiliary_rows(l, /*alpha=*/0, pass, begin, size);
    });
  }

  // V_i without a proximal term, then U_i with one. Rows do not interact, so both run chunk by chunk.
  void hidden_block(size_t l, const AffineMap& map, int64_t pass) {
    const std::string name = where("V", l);
    const HiddenStateBlock block(map, options_.gamma()[l], options_.rho_of(l + 1),
                                 options_.state_regularizer()[l], rows_.rows(), name.c_str());
    for_each_chunk(rows_.rows(), [&](int64_t begin, int64_t size) {
      const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, size); };
      const at::Tensor v = cut(rows_.next.v[l]);
      const at::Tensor previous = block.iterative() ? cut(source(pass).v[l]).clone() : at::Tensor();
      passes::activation(cut(source(pass).u[l]), activation(l), v);
      block.solve_(v, previous, cut(rows_.next.u[l + 1]), cut(rows_.next.residual[l + 1]));
      auxiliary_rows(l, options_.alpha()[l], pass, begin, size);
    });
  }

  void weight_block(size_t l, const TrainedLayer& layer, const at::Tensor&) override {
    const double alpha = options_.alpha_weight_of(l);
    const WeightPenalties penalties{options_.rho_of(l), alpha, alpha, options_.weight_regularizer()[l]};
    const auto make = [&](bool keep) {
      const std::string name = where("W", l);
      return std::make_unique<WeightBlock>(layer.input, layer.outputs(), layer.bias(), penalties, keep,
                                           name.c_str(), problem_.sum_over_ranks);
    };
    InputBlockCache& cache = rows_.cache;
    const bool keep = l == 0 && cache.enabled;
    if (keep && !(cache.block && cache.penalties == penalties && cache.trained == problem_.trained[l])) {
      cache.block = make(/*keep=*/true);
      cache.penalties = penalties;
      cache.trained = problem_.trained[l];
    }
    const std::unique_ptr<WeightBlock> passing = keep ? nullptr : make(/*keep=*/false);
    (keep ? *cache.block : *passing).solve(rows_.next.residual[l], layer.map, layer.next);
  }
};

}  // namespace

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

BcdVariables BcdVariables::allocate(int64_t rows, const std::vector<AffineMap>& maps) {
  return {allocate_states(rows, maps), allocate_states(rows, maps), allocate_states(rows, maps)};
}

void forward_pass(const BcdProblem& problem, const std::vector<AffineMap>& maps, BcdRows& rows) {
  for (size_t l = 0; l < problem.depth(); ++l) {
    const at::Tensor& u = rows.current.u[l];
    affine_out(rows.input(l), maps[l], u);
    const at::Tensor& v = rows.current.v[l];
    passes::activation(u, problem.activations[l], v);
    const Regularizer& regularizer = problem.options.state_regularizer()[l];
    if (regularizer.bounded()) {
      passes::prox_regularizer(v, {.low = regularizer.low, .high = regularizer.high}, 1, v);
    }
    rows.current.residual[l].zero_();
  }
  rows.residuals = Residuals::kCurrent;
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
      }
    }
  });
  rows.residuals = Residuals::kCurrent;
}

ObjectiveTerms objective_terms(const BcdProblem& problem, const std::vector<AffineMap>& maps,
                               const BcdRows& rows, const BcdVariables& variables) {
  const BCDOptions& options = problem.options;
  const size_t depth = problem.depth();
  ObjectiveTerms terms;
  const auto measured = {&terms.activation_penalty, &terms.affine_penalty, &terms.state_penalty};
  for (std::vector<double>* part : measured) {
    part->assign(depth, 0);
  }
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const BcdVariables chunk = variables.narrow(begin, size);
    for (size_t l = 0; l < depth; ++l) {
      const at::Tensor gap = passes::activation(chunk.u[l], problem.activations[l]).sub_(chunk.v[l]);
      terms.activation_penalty[l] += options.gamma()[l] / 2 * norm_squared(gap);
      if (options.splitting() == 3) {
        terms.affine_penalty[l] += options.rho_of(l) / 2 * norm_squared(chunk.residual[l]);
      }
      terms.state_penalty[l] += regularizer_value(options.state_regularizer()[l], chunk.v[l]);
    }
    terms.loss += row_loss_weight(options, rows.population) * weighted_loss(rows.y.narrow(0, begin, size),
                                                                            chunk.v.back(), problem.loss,
                                                                            rows.row_weights(begin, size));
  });
  if (problem.sum_over_ranks) {
    std::vector<double*> sums = {&terms.loss};
    for (std::vector<double>* part : measured) {
      for (double& term : *part) {
        sums.push_back(&term);
      }
    }
    sum_over_ranks(problem.sum_over_ranks, rows.x.device(), sums);
  }
  for (size_t l = 0; l < depth; ++l) {
    terms.weight_penalty.push_back(
        regularizer_value(problem.options.weight_regularizer()[l], maps[l].weight));
  }
  return terms;
}

Residuals sweep_bcd(const BcdSweep& sweep) {
  const bool two = sweep.problem.options.splitting() == 2;
  if (two || sweep.rows.residuals == Residuals::kStale) {
    refresh_residuals(sweep.problem, sweep.maps, sweep.rows);
  }
  return two ? TwoSplitting(sweep).run() : ThreeSplitting(sweep).run();
}

}  // namespace torchbcd
