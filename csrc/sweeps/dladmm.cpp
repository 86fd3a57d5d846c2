#include "sweeps/dladmm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <utility>

#include "blocks/weight_step.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/sloped_blocks.h"

namespace torchbcd {
namespace {

class DladmmBlocks : SlopedBlocks<DladmmSweep> {
 public:
  explicit DladmmBlocks(const DladmmSweep& sweep)
      : SlopedBlocks(sweep), totals_(problem_.sum_over_ranks, rows_.x.device()), v_(sweep.rows.next) {}

  DladmmReport run() {
    start();
    report_.theta.resize(depth());
    report_.tau.resize(depth() - 1);
    for (size_t l = depth(); l-- > 0;) {
      if (l + 1 < depth()) {
        a_block(l);
      }
      z_block(l);
      b_block(l);
      weight_block(l);
    }
    for (size_t l = 0; l < depth(); ++l) {
      weight_block(l);
      b_block(l);
      z_block(l);
      if (l + 1 < depth()) {
        a_block(l);
      }
    }
    multiplier_block();
    return std::move(report_);
  }

 private:
  const AffineMap& map(size_t l) const { return sweep_.next_maps[l]; }
  const at::Tensor& input(size_t l) const { return l == 0 ? rows_.x : v_.a[l - 1]; }

  // Every block is updated in place, in a copy of the current point.
  void start() {
    copy_maps(sweep_.maps, sweep_.next_maps);
    const DladmmVariables& from = rows_.current;
    for (size_t l = 0; l < depth(); ++l) {
      v_.z[l].copy_(from.z[l]);
      v_.q[l].copy_(from.q[l]);
      if (l + 1 < depth()) {
        v_.a[l].copy_(from.a[l]);
      }
    }
    v_.u.copy_(from.u);
  }

  // What q_l is drawn to. The multiplier completes the square: <u, z - q> + rho/2 |z - q|^2 is
  // rho/2 |z + u/rho - q|^2 but for a constant.
  at::Tensor target(size_t l) const {
    if (l + 1 < depth()) {
      return v_.z[l];
    }
    at::Tensor t = scratch(2, v_.z[l].size(1));
    t.copy_(v_.z[l]);
    return t.add_(v_.u, 1 / options_.penalty()[l]);
  }

  // a_l: a gradient step on nu/2 |a - h(z_l)|^2 + penalty/2 |target - q_{l+1}|^2, a quadratic, with exact
  // line search.
  void a_block(size_t l) {
    const double nu = options_.penalty()[l];
    const double penalty = options_.penalty()[l + 1];
    const at::Tensor& weight = map(l + 1).weight;
    at::Tensor residual = scratch(0, weight.size(0));
    at::Tensor gradient = scratch(1, weight.size(1));
    passes::difference(v_.q[l + 1], target(l + 1), residual);
    passes::activation(v_.z[l], activation(l), gradient);
    gradient.sub_(v_.a[l]).mul_(-nu).addmm_(residual, weight, 1, penalty);
    at::mm_out(residual, gradient, weight.t());
    report_.products += 2;
    double image = 0;
    double square = 0;
    const auto measure = [&] {
      image = passes::sum_of_squares(residual);
      square = passes::sum_of_squares(gradient);
      totals_.add_up({&image, &square});
    };
    measure();
    double scale = 1;
    if (!std::isfinite(image)) {  // more than float32 holds; of a shorter vector it is not
      scale = std::exp2(-std::rint(std::log2(square) / 2));
      gradient.mul_(scale);
      at::mm_out(residual, gradient, weight.t());
      ++report_.products;
      measure();
    }
    if (square > 0) {
      const double tau = nu + penalty * image / square;
      v_.a[l].sub_(gradient, 1 / (scale * tau));
      v_.q[l + 1].sub_(residual, 1 / (scale * tau));
      report_.tau[l] = tau;
    }
    done("a", l);
  }

  // z_l: the activation's prox, and its slope, if that is trained, bound like one more entry; the loss's prox
  // in the last layer.
  void z_block(size_t l) {
    if (l + 1 < depth()) {
      passes::prox_activation(v_.a[l], v_.q[l], activation(l), 1, v_.z[l]);
    } else {
      const double penalty = options_.penalty()[l];
      v_.z[l].copy_(v_.q[l]).sub_(v_.u, 1 / penalty);
      passes::loss_update(rows_.y, v_.z[l], rows_.row_weight, problem_.loss, {},
                          row_loss_weight(options_, rows_.population), penalty, v_.z[l]);
    }
    done("z", l);
    if (trains_slope(l)) {
      slope_block(l, v_.a[l], v_.z[l], options_.penalty()[l], options_.penalty()[l]);
    }
  }

  // b_l: the mean residual, exactly.
  void b_block(size_t l) {
    if (!problem_.trained[l].bias) {
      return;
    }
    const at::Tensor residual = scratch(0, v_.q[l].size(1));
    passes::difference(v_.q[l], target(l), residual);
    const at::Tensor sums = residual.sum(0);
    totals_.add_up_matrices({sums});
    const at::Tensor mean = at::div(sums, rows_.population);
    map(l).bias.sub_(mean);
    v_.q[l].sub_(mean);
    done("b", l);
  }

  void weight_block(size_t l) {
    if (!problem_.trained[l].weight) {
      return;
    }
    const double penalty = options_.penalty()[l];
    const at::Tensor residual = scratch(0, v_.q[l].size(1));
    const at::Tensor goal = target(l);
    passes::difference(v_.q[l], goal, residual);
    const at::Tensor& a = input(l);
    const WeightRegularizer& regularizer = options_.weight_regularizer()[l];
    double guess = 0.8 * rows_.theta[l];
    if (!(rows_.theta[l] > 0) && !regularizer.quadratic()) {
      guess = penalty * totals_.of(passes::sum_of_squares(a));
    }
    const AffineMap from = {map(l).weight.clone(), {}};
    const WeightStep step =
        weight_step(a, goal, from, penalty, regularizer, guess, {residual, scratch(1, v_.q[l].size(1))},
                    {map(l).weight, {}}, v_.q[l], totals_);
    report_.theta[l] = step.theta;
    report_.products += step.products;
    done("W", l);
  }

  void multiplier_block() {
    const at::Tensor residual = scratch(0, v_.u.size(1));
    report_.primal_residual = std::sqrt(totals_.of(passes::difference(v_.z.back(), v_.q.back(), residual)));
    v_.u.add_(residual, options_.penalty()[depth() - 1]);
    done("u", depth() - 1);
  }

  Totals totals_;
  DladmmVariables& v_;
  DladmmReport report_;
};

}  // namespace

DladmmVariables DladmmVariables::allocate(int64_t n, const std::vector<AffineMap>& maps) {
  const std::vector<at::Tensor> z = allocate_states(n, maps);
  return {z, allocate_states(n, maps, /*with_last=*/false), allocate_states(n, maps),
          at::zeros_like(z.back())};
}

DladmmRows DladmmRows::allocate(at::Tensor x, at::Tensor y, at::Tensor row_weight,
                                const std::vector<AffineMap>& maps) {
  const int64_t n = x.size(0);
  return {std::move(x),
          std::move(y),
          std::move(row_weight),
          /*population=*/0,
          DladmmVariables::allocate(n, maps),
          DladmmVariables::allocate(n, maps),
          allocate_scratch(n, maps, 3),
          std::vector<double>(maps.size(), 0)};
}

ObjectiveTerms objective_terms(const DladmmProblem& problem, const std::vector<AffineMap>& maps,
                               const DladmmRows& rows) {
  const DladmmVariables& v = rows.current;
  const DLADMMOptions& options = problem.options;
  const std::vector<functors::AnyActivation> activations = activations_at(problem.activations, maps);
  ObjectiveTerms terms;
  for (size_t l = 0; l < problem.depth(); ++l) {
    const double penalty = options.penalty()[l];
    at::Tensor residual = scratch_view(rows.scratch[0], rows.rows(), v.z[l].size(1));
    terms.affine_penalty.push_back(penalty / 2 * passes::difference(v.z[l], v.q[l], residual));
    terms.weight_penalty.push_back(regularizer_value(options.weight_regularizer()[l], maps[l].weight));
    terms.state_penalty.push_back(0);
    double gap = 0;
    if (l + 1 < problem.depth()) {
      passes::activation(v.z[l], activations[l], residual);
      gap = penalty / 2 * passes::difference(residual, v.a[l], residual);
    } else {
      terms.affine_penalty.back() += residual.mul_(v.u).sum(at::kDouble).item<double>();
    }
    terms.activation_penalty.push_back(gap);
  }
  terms.loss = row_loss_weight(options, rows.population) *
               weighted_loss(rows.y, v.z.back(), problem.loss, rows.row_weight);
  add_up_over_rows(Totals(problem.sum_over_ranks, rows.x.device()), terms);
  return terms;
}

DladmmReport sweep_dladmm(const DladmmSweep& sweep) { return DladmmBlocks(sweep).run(); }

}  // namespace torchbcd
