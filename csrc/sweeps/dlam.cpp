#include "sweeps/dlam.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "blocks/least_squares.h"
#include "blocks/proximal_gradient.h"
#include "blocks/weight_step.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/dlam_conditions.h"

namespace torchbcd {
namespace {

// The part of Theorem 1's bound on omega^2 that capped momentum stays below, and its distance from 1: the
// sums of eq. (17) bound the steps only where 1 - omega^2 does not vanish.
constexpr double kCap = 0.98;
constexpr double kLargestOmega = 0.99;
// What z's distance counts against a's where eps shrinks.
constexpr double kProjectionRatio = 1e-2;

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

class DlamBlocks : Blocks<DlamSweep> {
 public:
  explicit DlamBlocks(const DlamSweep& sweep)
      : Blocks(sweep), totals_(problem_.sum_over_ranks, rows_.x.device()), base_(&sweep.rows.current) {
    report_.eps = sweep.eps;
    report_.omega = sweep.omega;
    for (std::vector<double>* of_weights : {&report_.theta, &report_.weight_omega, &report_.weight_slack}) {
      of_weights->resize(depth());
    }
    for (std::vector<double>* of_states : {&report_.tau, &report_.state_omega, &report_.state_slack}) {
      of_states->resize(depth() - 1);
    }
  }

  DlamReport run() {
    const size_t last = depth() - 1;
    if (sweep_.eps < rows_.eps && last > 0) {
      make_feasible();
    }
    for (size_t l = 0; l <= last; ++l) {
      weight_block(l);
      done("W", l);
      if (l == last) {
        output_block();
        done("z", l);
      } else {
        z_and_a_blocks(l);
        done("z", l);
        done("a", l);
      }
    }
    return std::move(report_);
  }

 private:
  const at::Tensor& input(size_t l) const { return l == 0 ? rows_.x : rows_.next.a[l - 1]; }

  // A smaller eps makes F infinite until z and a are within the new boxes: the nearest point there, where a
  // counts far more than z. So z goes to a, unless it would have to go very far (a flat activation), and a
  // follows: moving a alone would throw away what the output's error has written into it.
  void make_feasible() {
    DlamVariables& feasible = rows_.feasible;
    const size_t last = depth() - 1;
    feasible.z[last] = rows_.current.z[last];
    for (size_t l = 0; l < last; ++l) {
      const at::Tensor& q = l == 0 ? rows_.current.q[0] : feasible.q[l];
      const at::Tensor& a = rows_.current.a[l];
      passes::joint_step(a, a, a, rows_.current.z[l], q, activation(l), /*omega=*/0, /*step=*/0, sweep_.eps,
                         kProjectionRatio, feasible.z[l], feasible.a[l], scratch(3, a.size(1)));
      affine_out(feasible.a[l], sweep_.maps[l + 1], feasible.q[l + 1]);
      ++report_.products;
    }
    feasible.q[0] = rows_.current.q[0];
    base_ = &feasible;
  }

  // Accepts an extrapolated step where F falls enough, another one where F does not rise (which only rounding
  // may have it do), and any where DLAM does not ask. The paper asks of the first that F falls (line 7),
  // which leaves Lemma 6, eq. (11), without the uniform constant that its proof uses.
  bool accepted(double omega, double before, double after, double curvature, double change) const {
    if (!options_.monotone()) {
      return true;
    }
    if (omega == 0) {
      return after <= before;
    }
    const double part = options_.sufficient_decrease();
    return part > 0 ? after <= before - part * curvature / 2 * change : after < before;
  }

  // A smaller factor for a curvature that grew too fast for Theorem 1; the old one where it is small enough.
  double capped(double omega, double before, double now, int attempt) const {
    if (options_.momentum() != "capped" || omega == 0 || !(before > 0 && now > 0)) {
      return omega;
    }
    const double bound = std::sqrt(kCap * before / now);
    if (omega < bound) {
      return omega;
    }
    return attempt < 3 ? std::min(bound, omega / 2) : 0;
  }

  double first_omega() const {
    return options_.momentum() == "capped" ? std::min(sweep_.omega, kLargestOmega) : sweep_.omega;
  }

  /// What a step from a point extrapolated by some factor came to.
  struct Step {
    double curvature;  // theta or tau
    double before;     // F's terms that it touches, of all rows where DLAM asks for them
    double after;
    double change;             // |new - old|^2
    double descent_curvature;  // what `change` has to be paid for with
  };

  // Tries Nesterov's factor, then smaller ones, at last none, until the step is accepted: `restore` sets the
  // residual back, `step(omega)` takes the step. Returns the factor, or nothing where no step does.
  template <typename Restore, typename TakeStep>
  std::optional<double> descend(double last_curvature, const Restore& restore, const TakeStep& take_step) {
    double omega = first_omega();
    for (int attempt = 0;; ++attempt) {
      if (attempt > 0) {
        restore();
      }
      const Step step = take_step(omega);
      const double smaller = capped(omega, last_curvature, step.curvature, attempt);
      if (smaller < omega) {
        omega = smaller;
      } else if (accepted(omega, step.before, step.after, step.descent_curvature, step.change)) {
        return omega;
      } else if (omega == 0) {
        ++report_.kept;
        return std::nullopt;
      } else {
        omega = 0;
        ++report_.redone;
      }
    }
  }

  void weight_block(size_t l) {
    const at::Tensor& a = input(l);
    const at::Tensor& z = base_->z[l];
    const at::Tensor& q = l == 0 ? base_->q[0] : rows_.next.q[l];
    const double rho = options_.rho()[l];
    const WeightRegularizer& regularizer = options_.weight_regularizer()[l];
    const AffineMap& map = sweep_.maps[l];
    const AffineMap& next = sweep_.next_maps[l];
    const at::Tensor residual = scratch(0, z.size(1));
    const double start = passes::difference(q, z, residual);
    if (!problem_.trained[l].any()) {
      keep_weight(l, q, start);
      return;
    }
    const TrainedLayer layer = trained_layer(l, a);
    const Trained trained = problem_.trained[l];
    const double penalty = regularizer_value(regularizer, layer.map.weight);
    if (options_.weight_damping().has_value()) {
      if (!solve_weight(l, layer, a, z, residual, start)) {
        ++report_.kept;
        keep_weight(l, q, start);
      }
      return;
    }
    double guess = 0.8 * rows_.theta[l];
    if (!(rows_.theta[l] > 0) && !regularizer.quadratic()) {
      guess = rho * (totals_.of(passes::sum_of_squares(a)) + rows_.population);
    }
    WeightStep step;
    const auto take_step = [&](double omega) -> Step {
      extrapolate_residual(l, a, q, z, omega, residual);
      const AffineMap from = extrapolated(map, sweep_.previous_maps[l], omega);
      step = weight_step(layer.input, z, trained_part(from, trained), rho, regularizer, guess,
                         {residual, scratch(1, z.size(1))}, layer.next, rows_.trial_q[l], totals_);
      if (step.distance == 0) {
        step.theta = rows_.theta[l];  // every theta satisfies (2) for a step that goes nowhere
      }
      report_.products += step.products;
      report_.trials += step.trials - 1;
      const double change = norm_squared(next.weight - map.weight) +
                            (map.bias.defined() ? norm_squared(next.bias - map.bias) : 0);
      const auto [before, after] = for_test(start, step.residual);
      return {step.theta, rho / 2 * before + penalty, rho / 2 * after + step.regularizer, change, step.theta};
    };
    const std::optional<double> omega =
        descend(rows_.theta[l], [&] { passes::difference(q, z, residual); }, take_step);
    report_.theta[l] = step.theta;
    if (!omega) {
      keep_weight(l, q, start);
      return;
    }
    report_.weight_omega[l] = *omega;
    if (options_.check_conditions()) {
      const AffineMap from = extrapolated(map, sweep_.previous_maps[l], *omega);
      report_.weight_slack[l] = weight_slack(a, z, from, next, rho, step.theta, regularizer, totals_);
    }
    std::swap(rows_.next.q[l], rows_.trial_q[l]);
    z_residual_ = step.residual;
  }

  // Two sums over rows, of all of them where a test asks.
  std::pair<double, double> for_test(double before, double after) const {
    if (options_.monotone()) {
      totals_.add_up({&before, &after});
    }
    return {before, after};
  }

  // W_l and b_l stay, where rounding leaves no way down.
  void keep_weight(size_t l, const at::Tensor& q, double z_residual) {
    copy_maps({sweep_.maps[l]}, {sweep_.next_maps[l]});
    if (l == 0) {
      rows_.next.q[0].copy_(q);
    }
    z_residual_ = z_residual;
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
    const AffineMap& map = sweep_.maps[l];
    const AffineMap& previous = sweep_.previous_maps[l];
    at::Tensor out = residual;
    out.addmm_(a, at::sub(map.weight, previous.weight).t(), 1, omega);
    ++report_.products;
    if (map.bias.defined()) {
      out.add_(at::sub(map.bias, previous.bias), omega);
    }
  }

  // Eq. (1) itself, or with a proximal term relative to the inputs' mean square. False, and nothing moved,
  // where F rises by it.
  bool solve_weight(size_t l, const TrainedLayer& layer, const at::Tensor& a, const at::Tensor& z,
                    const at::Tensor& residual, double start) {
    const double rho = options_.rho()[l];
    const WeightRegularizer& regularizer = options_.weight_regularizer()[l];
    const double damping = *options_.weight_damping();
    const std::string name = where("W", l);
    at::Tensor target = residual;
    target.neg_();
    if (damping == 0) {
      exact_weights(layer.input, target, layer.map, rho, regularizer, name.c_str(), layer.next,
                    problem_.sum_over_ranks);
    } else {
      const double mean_square = totals_.of(passes::sum_of_squares(a)) / static_cast<double>(a.size(1));
      const double alpha = damping * rho * std::max(mean_square, 1e-30);
      solve_weight_block({layer.input, layer.bias(), problem_.sum_over_ranks},
                         {rho, alpha, alpha, regularizer}, name.c_str(), target, layer.map, layer.next);
    }
    affine_out(a, sweep_.next_maps[l], rows_.trial_q[l]);
    report_.products += 3;  // the cross product, the Gram matrix, q
    const double end = passes::difference(rows_.trial_q[l], z, residual);
    const auto [before, after] = for_test(start, end);
    if (!accepted(0, rho / 2 * before + regularizer_value(regularizer, layer.map.weight),
                  rho / 2 * after + regularizer_value(regularizer, layer.next.weight), 0, 0)) {
      return false;
    }
    std::swap(rows_.next.q[l], rows_.trial_q[l]);
    z_residual_ = end;
    return true;
  }

  // z_l, then a_l; or both at once.
  void z_and_a_blocks(size_t l) {
    const size_t m = l + 1;
    const at::Tensor& a = base_->a[l];
    const at::Tensor& a_previous = sweep_.omega > 0 ? rows_.a_previous[l] : a;
    const at::Tensor& z = base_->z[l];
    const at::Tensor& weight = sweep_.maps[m].weight;
    const double rho = options_.rho()[m];
    const double rho_z = options_.rho()[l];
    const bool joint = options_.joint();
    at::Tensor residual = scratch(0, weight.size(0));
    at::Tensor product = scratch(1, weight.size(0));
    at::Tensor gradient = scratch(2, weight.size(1));
    at::Tensor direction = scratch(3, weight.size(1));
    if (!joint) {
      // V_l is phi itself, whatever zbar: the extrapolation of z (lines 7 and 10) changes nothing.
      passes::preimage_projection(rows_.next.q[l], a, z, activation(l), sweep_.eps, rows_.next.z[l]);
    }
    const double start = passes::difference(base_->q[m], base_->z[m], residual);
    double tau = rows_.tau[l] > 0 ? 0.9 * rows_.tau[l] : rho * spectral_norm_squared(weight);
    const auto take_step = [&](double omega) -> Step {
      if (omega > 0) {
        at::sub_out(direction, a, a_previous);
        residual.addmm_(direction, weight.t(), 1, omega);
        ++report_.products;
      }
      at::mm_out(gradient, residual, weight);
      ++report_.products;
      const StateSums sums =
          projected_step(l, start, a_previous, gradient, omega, tau, direction, product, residual);
      double before = rho / 2 * sums.start;
      if (joint) {
        before += rho_z / 2 * sums.z_start;
      }
      const double after = rho / 2 * sums.end + rho_z / 2 * sums.step.z_residual;
      return {tau, before, after, sums.step.change, joint ? std::min(tau, rho_z) : tau};
    };
    const std::optional<double> omega =
        descend(rows_.tau[l], [&] { passes::difference(base_->q[m], base_->z[m], residual); }, take_step);
    report_.tau[l] = tau;
    if (!omega) {
      if (joint) {
        rows_.next.z[l].copy_(z);
      }
      rows_.next.a[l].copy_(a);
      rows_.next.q[m].copy_(base_->q[m]);
      return;
    }
    report_.state_omega[l] = *omega;
    if (options_.check_conditions()) {
      const at::Tensor old = a.to(at::kDouble);
      const at::Tensor from = old + (old - a_previous.to(at::kDouble)) * *omega;
      report_.state_slack[l] =
          state_slack(from, rows_.next.a[l].to(at::kDouble), base_->z[m], sweep_.maps[m], rho, tau, totals_);
    }
    std::swap(rows_.next.q[m], rows_.trial_q[m]);
  }

  // What a step of the states is measured by, over all rows.
  struct StateSums {
    passes::StateStep step;
    double start, end;  // |q - z|^2 of the layer behind
    double z_start;     // and of their own, before the step
    double image;       // |what the step moves q by|^2
  };

  // The gradient step from the extrapolated a, projected, with tau raised until its condition holds; leaves
  // the step, what it moves q by, and q where it leads. `start` is |q - z|^2 of the rows here.
  StateSums projected_step(size_t l, double start, const at::Tensor& a_previous, const at::Tensor& gradient,
                           double omega, double& tau, const at::Tensor& direction, at::Tensor product,
                           const at::Tensor& residual) {
    constexpr int kTrials = 100;
    const double rho = options_.rho()[l + 1];
    for (int trial = 0;; ++trial) {
      const double length = tau > 0 ? rho / tau : 0;
      StateSums sums{};
      sums.step = options_.joint()
                      ? passes::joint_step(base_->a[l], a_previous, gradient, base_->z[l], rows_.next.q[l],
                                           activation(l), omega, length, sweep_.eps,
                                           tau > 0 ? options_.rho()[l] / tau : 1, rows_.next.z[l],
                                           rows_.next.a[l], direction)
                      : passes::image_step(base_->a[l], a_previous, gradient, rows_.next.z[l], activation(l),
                                           omega, length, sweep_.eps, rows_.next.a[l], direction);
      at::mm_out(product, direction, sweep_.maps[l + 1].weight.t());
      ++report_.products;
      sums.image = passes::sum_of_squares(product);
      sums.start = start;
      sums.z_start = z_residual_;
      const auto move = [&] {
        sums.end = passes::residual_step(residual, product, base_->z[l + 1], 1, rows_.trial_q[l + 1]);
      };
      if (totals_.several()) {  // most trials are the last one, whose sums then need no message of their own
        move();
      }
      totals_.add_up({&sums.step.direction, &sums.step.change, &sums.step.z_residual, &sums.start, &sums.end,
                      &sums.z_start, &sums.image});
      const double curvature = rho * sums.image;
      if (tau * sums.step.direction >= curvature || trial == kTrials) {
        if (!totals_.several()) {
          move();
        }
        return sums;
      }
      tau = std::max(1.2 * tau, curvature / sums.step.direction);
      ++report_.trials;
    }
  }

  void output_block() {
    const size_t l = depth() - 1;
    const at::Tensor& q = rows_.next.q[l];
    const at::Tensor& out = rows_.next.z[l];
    const double rho = options_.rho()[l];
    const double weight = row_loss_weight(options_, rows_.population);
    if (options_.output_solver() == "fista") {
      fista_output(rows_.y, q, base_->z[l], rows_.row_weight, problem_.loss, weight, rho, out);
    } else {
      passes::loss_update(rows_.y, q, rows_.row_weight, problem_.loss, {}, weight, rho, out);
    }
  }

  Totals totals_;
  const DlamVariables* base_;  // the point that the sweep starts from
  DlamReport report_;
  double z_residual_ = 0;  // |q_l - z_l^k|^2 after W_l, of the rows here
};

}  // namespace

DlamReport sweep_dlam(const DlamSweep& sweep) { return DlamBlocks(sweep).run(); }

}  // namespace torchbcd
