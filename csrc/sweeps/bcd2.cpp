// Zeng et al., Algorithm 1: block coordinate descent on the 2-splitting formulation.
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>

#include <string>
#include <variant>

#include "blocks/nonlinear_least_squares.h"
#include "kernels/passes.h"
#include "sweeps/bcd.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

// u[l] of a RowSet holds the product P_l = V_{l-1} W_l^T + 1 b_l^T here. Where sigma is the identity, both
// blocks are least squares with their closed form; otherwise they are solved iteratively, from the point of
// the sweep before, and never end above it.
class TwoSplittingSweep {
 public:
  explicit TwoSplittingSweep(const BcdSweep& sweep)
      : sweep_(sweep), options_(sweep.problem.options), rows_(sweep.rows) {}

  Residuals run() {
    const size_t last = sweep_.problem.depth() - 1;
    refresh_residuals(sweep_.problem, sweep_.maps, rows_);
    if (options_.order() == "paper") {
      for (size_t l = last + 1; l-- > 0;) {
        for (int64_t pass = 0; pass < options_.inner_sweeps(); ++pass) {
          state_block(l, sweep_.next_maps, pass, rows_.current.u[l]);
        }
        weight_block(l, rows_.input(l), rows_.current.u[l]);
      }
      return Residuals::kAllButFirst;
    }
    for (int64_t pass = 0; pass < options_.inner_sweeps(); ++pass) {
      for (size_t l = last + 1; l-- > 0;) {
        state_block(l, sweep_.maps, pass, product(l, pass));
      }
    }
    for (size_t l = last + 1; l-- > 0;) {
      weight_block(l, l == 0 ? rows_.x : rows_.next.v[l - 1], product(l, /*pass=*/1));
    }
    return Residuals::kStale;
  }

 private:
  bool linear(size_t l) const { return std::holds_alternative<functors::Identity>(activation(l)); }

  const BcdVariables& source(int64_t pass) const { return pass == 0 ? rows_.current : rows_.next; }

  // P_l while the weights are still those of the last sweep: after the first pass over the states, V_{l-1}
  // has moved, except where it is the data.
  const at::Tensor& product(size_t l, int64_t pass) const {
    return l == 0 ? rows_.current.u[0] : source(pass).u[l];
  }

  // V_l, given the product P_l that its layer predicts it from.
  void state_block(size_t l, const std::vector<AffineMap>& maps, int64_t pass, const at::Tensor& predicted) {
    const at::Tensor& v = rows_.next.v[l];
    const at::Tensor previous = source(pass).v[l].clone();
    // V moves: what gamma/2 |V - sigma(P)|^2 and the proximal term have in common is its centre.
    passes::output_centre(previous, predicted, activation(l), options_.gamma()[l], options_.alpha()[l], v);
    const double curvature = options_.gamma()[l] + options_.alpha()[l];
    if (l + 1 == sweep_.problem.depth()) {
      passes::loss_update(rows_.y, v, rows_.row_weights(0, rows_.rows()), sweep_.problem.loss,
                          options_.state_regularizer()[l], row_loss_weight(options_, rows_.population),
                          curvature, v);
    } else {
      hidden_state(l, maps[l + 1], previous, curvature);
    }
    done("V", l);
  }

  void hidden_state(size_t l, const AffineMap& map, const at::Tensor& previous, double curvature) {
    const std::string name = where("V", l);
    const Regularizer& regularizer = options_.state_regularizer()[l];
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
    const NonlinearLeastSquares problem(map.weight, curvature, gamma, activation(l + 1), regularizer,
                                        map.weight.size(1));
    const at::Tensor solution = previous;
    affine_out(solution, map, product);
    problem.minimise_(solution, v, target, product, name.c_str());
    v.copy_(solution);
  }

  // W_l and b_l, given the layer's inputs and the product P_l of those with the previous weights.
  void weight_block(size_t l, const at::Tensor& input, const at::Tensor& predicted) {
    const AffineMap& map = sweep_.maps[l];
    const AffineMap& next = sweep_.next_maps[l];
    const std::string name = where("W", l);
    const at::Tensor& target = rows_.next.v[l];
    const Trained trained = sweep_.problem.trained[l];
    if (!trained.any()) {
      copy_map(map, next);
      return;
    }
    if (linear(l)) {
      at::Tensor residual = rows_.next.residual[l];
      at::sub_out(residual, target, predicted);
      const double alpha = options_.alpha_weight_of(l);
      const WeightPenalties penalties{options_.gamma()[l], alpha, alpha, options_.weight_regularizer()[l]};
      WeightBlock(input, map.weight.size(0), trained, penalties, /*always_primal=*/false, name.c_str())
          .solve(residual, map, next);
    } else {
      const int64_t inputs = trained.weight ? map.weight.size(1) : 0;
      const auto trained_part = [&](const at::Tensor& of_weight, const at::Tensor& of_bias) {
        return !trained.bias     ? of_weight
               : !trained.weight ? of_bias
                                 : at::cat({of_weight, of_bias}, 1);
      };
      const at::Tensor design = trained_part(input, at::ones({input.size(0), 1}, input.options()));
      const at::Tensor centre = trained_part(map.weight, trained.bias ? map.bias.unsqueeze(1) : map.bias);
      const at::Tensor solution = centre.clone();
      const NonlinearLeastSquares problem(design, options_.alpha_weight_of(l), options_.gamma()[l],
                                          activation(l), options_.weight_regularizer()[l], inputs);
      problem.minimise_(solution, centre, target.t(), predicted.t().clone(), name.c_str());
      copy_map(map, next);
      if (trained.weight) {
        next.weight.copy_(solution.narrow(1, 0, inputs));
      }
      if (trained.bias) {
        next.bias.copy_(solution.select(1, inputs));
      }
    }
    done("W", l);
  }

  std::string where(const char* block, size_t l) const {
    return block_name(sweep_.problem.name, sweep_.problem.depth(), block, l);
  }
  void done(const char* block, size_t l) const { observe(sweep_.observer, block, l); }
  const functors::AnyActivation& activation(size_t l) const { return sweep_.problem.activations[l]; }

  const BcdSweep& sweep_;
  const BCDOptions& options_;
  BcdRows& rows_;
};

}  // namespace

Residuals sweep_two_splitting(const BcdSweep& sweep) { return TwoSplittingSweep(sweep).run(); }

}  // namespace torchbcd
