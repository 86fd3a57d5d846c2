#include "engine/dlam_sweep.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/proximal_gradient.h"
#include "engine/weight_step.h"
#include "ops/passes.h"
#include "ops/summed_passes.h"

namespace torchbcd {
namespace {

// An extrapolated step counts as a descent where F falls by at least this part of theta/2 |change|^2. The
// paper's "F does not rise" leaves Lemma 6, eq. (11), without the uniform constant that its proof uses.
constexpr double kSufficientDecrease = 1e-3;
// The part of Theorem 1's bound on omega^2 that capped momentum stays below, and its distance from 1: the
// sums of eq. (17) bound the steps only where 1 - omega^2 does not vanish.
constexpr double kCap = 0.98;
constexpr double kLargestOmega = 0.99;
// What z's distance counts against a's where eps shrinks.
constexpr double kProjectionRatio = 1e-2;

double inner_product(const at::Tensor& a, const at::Tensor& b) {
  return at::sum(a.to(at::kDouble).mul(b.to(at::kDouble))).item<double>();
}

double norm_squared(const at::Tensor& t) { return t.defined() ? inner_product(t, t) : 0; }

// W + omega (W - W_previous)
AffineMap extrapolated(const AffineMap& map, const AffineMap& previous, double omega) {
  if (omega == 0) {
    return map;
  }
  const auto along = [omega](const at::Tensor& t, const at::Tensor& before) {
    return t.defined() ? at::sub(t, before).mul_(omega).add_(t) : t;
  };
  return {along(map.weight, previous.weight), along(map.bias, previous.bias)};
}

// The largest eigenvalue of W^T W from below: what a direction of steepest curvature asks of tau.
double spectral_norm_squared(const at::Tensor& weight) {
  at::Tensor v = at::ones({weight.size(1)}, weight.options());
  double value = 0;
  for (int step = 0; step < 10; ++step) {
    const at::Tensor w = at::mv(weight, v);
    v = at::mv(weight.t(), w);
    const double length = at::linalg_vector_norm(v).item<double>();
    if (!(length > 0)) {
      return value;
    }
    v.div_(length);
    value = norm_squared(at::mv(weight, v));
  }
  return value;
}

class Sweep {
 public:
  explicit Sweep(const DlamSweepState& state)
      : state_(state), rows_(state.rows), base_(&state.rows.current), options_(state.options) {
    report_.eps = state.eps;
    report_.omega = state.omega;
    const size_t depth = state.depth();
    report_.theta.resize(depth);
    report_.weight_omega.resize(depth);
    report_.weight_slack.resize(depth);
    report_.tau.resize(depth - 1);
    report_.state_omega.resize(depth - 1);
    report_.state_slack.resize(depth - 1);
  }

  DlamReport run() {
    const size_t last = state_.depth() - 1;
    if (state_.eps < rows_.eps && last > 0) {
      make_feasible();
    }
    for (size_t l = 0; l <= last; ++l) {
      weight_block(l);
      done("W", l);
      if (l == last) {
        output_block();
        done("z", l);
      } else {
        state_blocks(l);
        done("z", l);
        done("a", l);
      }
    }
    return std::move(report_);
  }

 private:
  void done(const char* block, size_t layer) const {
    if (state_.observer) {
      state_.observer(block, layer);
    }
  }

  at::Tensor scratch(int which, int64_t columns) const {
    return rows_.scratch[which].narrow(0, 0, rows_.rows() * columns).view({rows_.rows(), columns});
  }

  const at::Tensor& input(size_t l) const { return l == 0 ? rows_.x : rows_.next.a[l - 1]; }

  // A smaller eps makes F infinite until z and a are within the new boxes: the nearest point there, where a
  // counts far more than z. So z goes to a, unless it would have to go very far (a flat activation), and a
  // follows: moving a alone would throw away what the output's error has written into it.
  void make_feasible() {
    DlamVariables& feasible = rows_.feasible;
    const size_t last = state_.depth() - 1;
    feasible.z[last] = rows_.current.z[last];
    for (size_t l = 0; l < last; ++l) {
      const at::Tensor& q = l == 0 ? rows_.current.q[0] : feasible.q[l];
      const at::Tensor& a = rows_.current.a[l];
      passes::joint_step(a, a, a, rows_.current.z[l], q, state_.activations[l], /*omega=*/0, /*step=*/0,
                         state_.eps, kProjectionRatio, feasible.z[l], feasible.a[l], scratch(3, a.size(1)));
      affine_out(feasible.a[l], state_.maps[l + 1], feasible.q[l + 1]);
      ++report_.products;
    }
    feasible.q[0] = rows_.current.q[0];
    base_ = &feasible;
  }

  // Accepts an extrapolated step where F falls enough, and any step where DLAM does not ask.
  bool accepted(double omega, double before, double after, double curvature, double change) const {
    if (!options_.monotone) {
      return true;
    }
    return omega > 0 ? after <= before - kSufficientDecrease * curvature / 2 * change : after <= before;
  }

  // A smaller factor for a curvature that grew too fast for Theorem 1; the old one where it is small enough.
  double capped(double omega, double before, double now, int attempt) const {
    if (options_.momentum != Momentum::kCapped || omega == 0 || !(before > 0 && now > 0)) {
      return omega;
    }
    const double bound = std::sqrt(kCap * before / now);
    if (omega < bound) {
      return omega;
    }
    return attempt < 3 ? std::min(bound, omega / 2) : 0;
  }

  double first_omega() const {
    return options_.momentum == Momentum::kCapped ? std::min(state_.omega, kLargestOmega) : state_.omega;
  }

  void weight_block(size_t l) {
    const at::Tensor& a = input(l);
    const at::Tensor& z = base_->z[l];
    const at::Tensor& q = l == 0 ? base_->q[0] : rows_.next.q[l];
    const DlamLayer& layer = state_.layers[l];
    const AffineMap& map = state_.maps[l];
    const AffineMap& next = state_.next_maps[l];
    const at::Tensor residual = scratch(0, z.size(1));
    const WeightStepBuffers buffers{residual, scratch(1, z.size(1))};
    const double start = passes::difference(q, z, residual);
    const double before = layer.rho / 2 * start + regularizer_value(layer.weight_regularizer, map.weight);
    const auto keep = [&] {
      next.weight.copy_(map.weight);
      if (map.bias.defined()) {
        next.bias.copy_(map.bias);
      }
      if (l == 0) {
        rows_.next.q[0].copy_(q);
      }
      z_residual_ = start;
      ++report_.kept;
    };
    if (options_.weight_damping > 0) {
      solve_weight(l, a, z, residual, before, keep);
      return;
    }
    const double guess = rows_.theta[l] > 0
                             ? 0.8 * rows_.theta[l]
                             : layer.rho * (passes::sum_of_squares(a) + static_cast<double>(rows_.rows()));
    double omega = first_omega();
    bool fresh = true;  // whether `residual` is still q - z
    WeightStep step;
    for (int attempt = 0;; ++attempt) {
      if (!fresh) {
        passes::difference(q, z, residual);
      }
      extrapolate_residual(l, a, q, z, omega, residual);
      const AffineMap from = extrapolated(map, state_.previous_maps[l], omega);
      step = weight_step(a, z, from, layer.rho, layer.weight_regularizer, guess, buffers, next,
                         rows_.trial_q[l]);
      fresh = false;
      if (step.distance == 0) {
        step.theta = rows_.theta[l];  // every theta satisfies (2) for a step that goes nowhere
      }
      report_.products += step.products;
      report_.trials += step.trials - 1;
      const double smaller = capped(omega, rows_.theta[l], step.theta, attempt);
      if (smaller < omega) {
        omega = smaller;
        continue;
      }
      const double after = layer.rho / 2 * step.residual + step.regularizer;
      const double change = norm_squared(next.weight - map.weight) +
                            (map.bias.defined() ? norm_squared(next.bias - map.bias) : 0);
      if (accepted(omega, before, after, step.theta, change)) {
        break;
      }
      if (omega == 0) {
        keep();
        report_.theta[l] = step.theta;
        return;
      }
      omega = 0;
      ++report_.redone;
    }
    report_.theta[l] = step.theta;
    report_.weight_omega[l] = omega;
    if (options_.check_conditions) {
      report_.weight_slack[l] = weight_slack(l, a, z, omega, step.theta);
    }
    std::swap(rows_.next.q[l], rows_.trial_q[l]);
    z_residual_ = step.residual;
  }

  // residual := (q - z) + omega a (W - W_previous)^T. In the first layer, whose inputs are data, the product
  // is there already, from the sweep before.
  void extrapolate_residual(size_t l, const at::Tensor& a, const at::Tensor& q, const at::Tensor& z,
                            double omega, const at::Tensor& residual) {
    if (omega == 0) {
      return;
    }
    if (l == 0) {
      passes::extrapolated_difference(q, rows_.q_previous, z, omega, residual);
      return;
    }
    const AffineMap& map = state_.maps[l];
    const AffineMap& previous = state_.previous_maps[l];
    at::Tensor out = residual;
    out.addmm_(a, at::sub(map.weight, previous.weight).t(), 1, omega);
    ++report_.products;
    if (map.bias.defined()) {
      out.add_(at::sub(map.bias, previous.bias), omega);
    }
  }

  // Eq. (1) itself: ridge regression, with a proximal term relative to the inputs' mean square.
  template <typename Keep>
  void solve_weight(size_t l, const at::Tensor& a, const at::Tensor& z, const at::Tensor& residual,
                    double before, const Keep& keep) {
    const DlamLayer& layer = state_.layers[l];
    const AffineMap& map = state_.maps[l];
    const AffineMap& next = state_.next_maps[l];
    const double mean_square = passes::sum_of_squares(a) / static_cast<double>(a.size(1));
    const double alpha = options_.weight_damping * layer.rho * std::max(mean_square, 1e-30);
    const std::string where = block_name(state_.name, state_.depth(), "W", l);
    at::Tensor target = residual;
    target.neg_();
    WeightBlock(a, z.size(1), map.bias.defined(), {layer.rho, alpha, layer.weight_regularizer},
                /*always_primal=*/false, where.c_str())
        .solve(target, map, next);
    affine_out(a, next, rows_.trial_q[l]);
    report_.products += 3;  // the cross product, the Gram matrix, q
    const double after_residual = passes::difference(rows_.trial_q[l], z, residual);
    const double after =
        layer.rho / 2 * after_residual + regularizer_value(layer.weight_regularizer, next.weight);
    if (!accepted(0, before, after, 0, 0)) {
      keep();
      return;
    }
    std::swap(rows_.next.q[l], rows_.trial_q[l]);
    z_residual_ = after_residual;
  }

  // (P - phi) / (|P| + phi) of condition (2), from the definitions in float64. The bias's steps have theta +
  // mu for theta, mu the weight of a squared norm.
  double weight_slack(size_t l, const at::Tensor& a, const at::Tensor& z, double omega, double theta) const {
    const DlamLayer& layer = state_.layers[l];
    const AffineMap from = extrapolated(state_.maps[l], state_.previous_maps[l], omega);
    const AffineMap& next = state_.next_maps[l];
    const at::Tensor inputs = a.to(at::kDouble);
    const at::Tensor target = z.to(at::kDouble);
    const auto residual = [&](const AffineMap& map) {
      at::Tensor r = at::mm(inputs, map.weight.to(at::kDouble).t()).sub_(target);
      return map.bias.defined() ? r.add_(map.bias.to(at::kDouble)) : r;
    };
    const at::Tensor r = residual(from);
    const at::Tensor change = next.weight.to(at::kDouble) - from.weight.to(at::kDouble);
    double model = layer.rho / 2 * norm_squared(r) +
                   layer.rho * inner_product(at::mm(r.t(), inputs), change) +
                   theta / 2 * norm_squared(change);
    if (from.bias.defined()) {
      const at::Tensor bias_change = next.bias.to(at::kDouble) - from.bias.to(at::kDouble);
      const double theta_bias =
          theta + (layer.weight_regularizer.quadratic() ? layer.weight_regularizer.l2 : 0);
      model += layer.rho * inner_product(r.sum(0), bias_change) + theta_bias / 2 * norm_squared(bias_change);
    }
    const double phi = layer.rho / 2 * norm_squared(residual(next));
    return relative_slack(model, phi);
  }

  static double relative_slack(double model, double phi) {
    const double scale = std::fabs(model) + phi;
    return scale > 0 ? (model - phi) / scale : 0;
  }

  // z_l, then a_l; or both at once.
  void state_blocks(size_t l) {
    const size_t m = l + 1;
    const at::Tensor& a = base_->a[l];
    const at::Tensor& a_previous = state_.omega > 0 ? rows_.a_previous[l] : a;
    const at::Tensor& z = base_->z[l];
    const functors::Activation& activation = state_.activations[l];
    const at::Tensor& weight = state_.maps[m].weight;
    const double rho = state_.layers[m].rho;
    const double rho_z = state_.layers[l].rho;
    at::Tensor residual = scratch(0, weight.size(0));
    at::Tensor product = scratch(1, weight.size(0));
    at::Tensor gradient = scratch(2, weight.size(1));
    at::Tensor direction = scratch(3, weight.size(1));
    if (!options_.joint) {
      // V_l is phi itself, whatever zbar: the extrapolation of z (lines 7 and 10) changes nothing.
      passes::preimage_projection(rows_.next.q[l], a, z, activation, state_.eps, rows_.next.z[l]);
    }
    double before = rho / 2 * passes::difference(base_->q[m], base_->z[m], residual);
    if (options_.joint) {
      before += rho_z / 2 * z_residual_;
    }
    double tau = rows_.tau[l] > 0 ? 0.9 * rows_.tau[l] : rho * spectral_norm_squared(weight);
    double omega = first_omega();
    double tried_tau = 0;
    bool fresh = true;
    for (int attempt = 0;; ++attempt) {
      if (!fresh) {
        passes::difference(base_->q[m], base_->z[m], residual);
      }
      fresh = false;
      if (omega > 0) {
        at::sub_out(direction, a, a_previous);
        residual.addmm_(direction, weight.t(), 1, omega);
        ++report_.products;
      }
      at::mm_out(gradient, residual, weight);
      ++report_.products;
      passes::StateStep step;
      constexpr int kTrials = 100;
      for (int trial = 0;; ++trial) {
        const double length = tau > 0 ? rho / tau : 0;
        step = options_.joint ? passes::joint_step(a, a_previous, gradient, z, rows_.next.q[l], activation,
                                                   omega, length, state_.eps, tau > 0 ? rho_z / tau : 1,
                                                   rows_.next.z[l], rows_.next.a[l], direction)
                              : passes::image_step(a, a_previous, gradient, rows_.next.z[l], activation,
                                                   omega, length, state_.eps, rows_.next.a[l], direction);
        at::mm_out(product, direction, weight.t());
        ++report_.products;
        const double curvature = rho * passes::sum_of_squares(product);
        if (tau * step.direction >= curvature || trial == kTrials) {
          break;
        }
        tau = std::max(1.2 * tau, curvature / step.direction);
        ++report_.trials;
      }
      tried_tau = tau;
      const double smaller = capped(omega, rows_.tau[l], tau, attempt);
      if (smaller < omega) {
        omega = smaller;
        continue;
      }
      const double after =
          rho / 2 * passes::residual_step(residual, product, base_->z[m], 1, rows_.trial_q[m]) +
          rho_z / 2 * step.z_residual;
      if (accepted(omega, before, after, options_.joint ? std::min(tau, rho_z) : tau, step.change)) {
        break;
      }
      if (omega == 0) {
        if (options_.joint) {
          rows_.next.z[l].copy_(z);
        }
        rows_.next.a[l].copy_(a);
        rows_.next.q[m].copy_(base_->q[m]);
        report_.tau[l] = tried_tau;
        ++report_.kept;
        return;
      }
      omega = 0;
      ++report_.redone;
    }
    report_.tau[l] = tried_tau;
    report_.state_omega[l] = omega;
    if (options_.check_conditions) {
      report_.state_slack[l] = state_slack(l, a, a_previous, omega, tried_tau);
    }
    std::swap(rows_.next.q[m], rows_.trial_q[m]);
  }

  // The same for tau: (Q - phi) / (|Q| + phi) in a.
  double state_slack(size_t l, const at::Tensor& a, const at::Tensor& a_previous, double omega,
                     double tau) const {
    const AffineMap& map = state_.maps[l + 1];
    const double rho = state_.layers[l + 1].rho;
    const at::Tensor weight = map.weight.to(at::kDouble);
    const at::Tensor target = base_->z[l + 1].to(at::kDouble);
    const auto residual = [&](const at::Tensor& inputs) {
      at::Tensor r = at::mm(inputs, weight.t()).sub_(target);
      return map.bias.defined() ? r.add_(map.bias.to(at::kDouble)) : r;
    };
    const at::Tensor old = a.to(at::kDouble);
    const at::Tensor from = old + (old - a_previous.to(at::kDouble)) * omega;
    const at::Tensor next = rows_.next.a[l].to(at::kDouble);
    const at::Tensor r = residual(from);
    const at::Tensor change = next - from;
    const double model = rho / 2 * norm_squared(r) + rho * inner_product(at::mm(r, weight), change) +
                         tau / 2 * norm_squared(change);
    return relative_slack(model, rho / 2 * norm_squared(residual(next)));
  }

  void output_block() {
    const size_t l = state_.depth() - 1;
    const at::Tensor& q = rows_.next.q[l];
    const at::Tensor& out = rows_.next.z[l];
    const double rho = state_.layers[l].rho;
    if (options_.output_solver == OutputSolver::kFista) {
      fista_output(rows_.y, q, base_->z[l], rows_.row_weight, state_.loss, state_.row_loss_weight, rho, out);
    } else {
      passes::loss_update(rows_.y, q, rows_.row_weight, state_.loss, {}, state_.row_loss_weight, rho, out);
    }
  }

  const DlamSweepState& state_;
  DlamRows& rows_;
  const DlamVariables* base_;  // the point that the sweep starts from
  const DlamOptions& options_;
  DlamReport report_;
  double z_residual_ = 0;  // |q_l - z_l^k|^2 after W_l
};

}  // namespace

DlamReport sweep_dlam(const DlamSweepState& state) { return Sweep(state).run(); }

}  // namespace torchbcd
