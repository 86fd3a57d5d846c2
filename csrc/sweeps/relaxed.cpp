#include "sweeps/relaxed.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/slice.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "blocks/input_metric.h"
#include "blocks/least_squares.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr double kTiny = 1e-290;  // keeps a quotient of sums, which are float64, from 0 / 0
constexpr double kLeastColumn = 1e-30;
// How often a state block's step is halved where kinks or curvature make it raise L, before it is dropped.
constexpr int kHalvings = 5;
// The decrease of a block that was fitted on blocks of rows.
const LazyValue kUnknown = {std::numeric_limits<double>::quiet_NaN(), 0, {}, {}};

// |x|^2 as one number on the data's device, which nothing waits for.
at::Tensor square_norm(const at::Tensor& x) { return at::sum(passes::row_sums_of_squares(x)); }

// What the gradient R W of the states is multiplied by, so that float32 holds it and its image by W^T: 1, or,
// where the rows of W are of unusual size, a power of two near 1/|w|^2, which changes no digit. `square` is
// |w|^2, the mean over rows.
double gradient_scale(double square) {
  constexpr double kUsual = 0x1p40;
  return square > 1 / kUsual && square < kUsual ? 1 : std::exp2(-std::rint(std::log2(square)));
}

class RelaxedBlocks : Blocks<RelaxedSweep> {
 public:
  explicit RelaxedBlocks(const RelaxedSweep& sweep)
      : Blocks(sweep), loss_weight_(row_loss_weight(options_, rows_.rows())), clamped_(problem_.clamped()) {}

  RelaxedReport run() {
    sweep_.progress = {depth(), sweep_.restored ? 0 : depth()};
    report_.penalties = rows_.penalties;
    output_block();
    for (size_t l = depth(); l-- > 0;) {
      weight_block(l);
      if (l > 0) {
        joint_block(l);
      }
    }
    return std::move(report_);
  }

 private:
  void done(const char* block, size_t layer, LazyValue decrease) {
    report_.decreases.push_back({block, layer + 1, std::move(decrease)});
    Blocks::done(block, layer);
  }

  const at::Tensor& input(size_t l) const { return l == 0 ? rows_.x : rows_.v[l - 1]; }

  // The unknowns of an output of layer l.
  int64_t inputs(size_t l) const { return input(l).size(1) + (sweep_.maps[l].bias.defined() ? 1 : 0); }

  // The rows of one of the blocks that layer l is fitted on: all of them where fewer would save nothing.
  int64_t rows_of_a_block(size_t l) const {
    const int64_t blocks = options_.row_blocks()[l];
    const int64_t size = (rows_.rows() + blocks - 1) / blocks;
    return size < inputs(l) ? size : rows_.rows();
  }
  bool in_blocks(size_t l) const { return rows_of_a_block(l) < rows_.rows(); }

  double regularizer(size_t l, const AffineMap& map) const {
    const WeightRegularizer& r = options_.weight_regularizer()[l];
    return r.none() ? 0 : rows_.penalties[l] * regularizer_value(r, map.weight);
  }

  double loss_value(const at::Tensor& v) const {
    return loss_weight_ * weighted_loss(rows_.y, v, problem_.loss);
  }

  // U_N and V_N = sigma(U_N): the target itself for the squared loss of a linear output, otherwise the
  // minimiser of weight l(sigma(U); Y) + rho/2 |U - P|^2. Leaves the residual U_N - P_N.
  void output_block() {
    const size_t l = depth() - 1;
    const double rho = rows_.penalties[l];
    const at::Tensor& slack = rows_.slack[l];
    LazyValue decrease;
    double constant = 0;
    for (size_t i = 0; i <= l; ++i) {
      constant += regularizer(i, sweep_.maps[i]);
      if (sweep_.restored && (i < l || !clamped_)) {
        constant += rows_.penalties[i] / 2 * passes::sum_of_squares(rows_.slack[i]);
      }
    }
    if (clamped_) {
      residual_sums_ = passes::row_difference(rows_.y, rows_.p[l], slack);
      rows_.v[l].copy_(rows_.y);
      report_.before = {constant, rho / 2, residual_sums_, {}};
    } else {
      const double loss = loss_value(rows_.v[l]);
      report_.before.constant = constant + loss;
      const double before = loss + (sweep_.restored ? rho / 2 * passes::sum_of_squares(slack) : 0);
      const at::Tensor u = scratch(0, slack.size(1));
      if (std::holds_alternative<functors::Identity>(activation(l))) {
        passes::loss_update(rows_.y, rows_.p[l], at::ones({1, 1}, slack.options()), problem_.loss, {},
                            loss_weight_, rho, u);
        rows_.v[l].copy_(u);
      } else {
        passes::prox_activation(rows_.y, rows_.p[l], activation(l), rho / loss_weight_, u);
        passes::activation(u, activation(l), rows_.v[l]);
      }
      residual_sums_ = passes::row_difference(u, rows_.p[l], slack);
      decrease = {before - loss_value(rows_.v[l]), rho / 2, {}, residual_sums_};
    }
    residual_ = slack;
    sweep_.progress.first_moved = sweep_.restored ? 0 : l;
    done("V", l, decrease);
  }

  // W_l and b_l: part of the way to the proximal ridge regression of the residual on the states that the
  // layer has read.
  void weight_block(size_t l) {
    input_square_ = passes::sum_of_squares(input(l));
    sweep_.progress.first_updated = l;
    if (frozen(l)) {
      return;
    }
    const at::Tensor before = residual_sums_;
    const TrainedLayer layer = trained_layer(l, input(l));
    const bool wanted =
        l == 0 && sweep_.standardize && problem_.trained[l].weight && options_.weight_regularizer()[l].none();
    if (!wanted || !fit_standardized(layer)) {
      fit(l, layer, input_square_);
    }
    const AffineMap& map = sweep_.maps[l];
    LazyValue decrease = {regularizer(l, map) - regularizer(l, sweep_.next_maps[l]), rows_.penalties[l] / 2,
                          before, residual_sums_};
    done("W", l, in_blocks(l) ? kUnknown : std::move(decrease));
  }

  // The first layer's step on standardised inputs, from zero; then what it is on the inputs. False, and
  // nothing done, where these do not vary.
  bool fit_standardized(const TrainedLayer& layer) {
    const InputMetric metric(rows_.x, layer.bias());
    const at::Tensor standardized = metric.standardized(rows_.x);
    const double square = passes::sum_of_squares(standardized);
    if (square == 0) {
      return false;
    }
    fit(0, {standardized, zeros_like(layer.map), layer.next}, square);
    metric.to_inputs_(layer.next);
    add_map_(layer.next, layer.map);
    return true;
  }

  // The step itself; the residual that it leaves takes the place of the old one. `square` is |V|^2.
  void fit(size_t l, const TrainedLayer& layer, double square) {
    const auto& [v, map, next] = layer;
    // Relative to the square of what each multiplies: a column of inputs, and for a bias one of ones, so that
    // large inputs do not bind it.
    const double column = std::max(square / static_cast<double>(inputs(l)), kLeastColumn);
    const double damping = options_.damping_of(l, rows_.classes);
    const double alpha = damping * column;
    const double alpha_bias = damping * std::min(column, static_cast<double>(rows_.rows()));
    const std::string name = where("W", l);
    const double nu = options_.relaxation_of(l);
    const WeightRegularizer& r = options_.weight_regularizer()[l];
    at::Tensor out = scratch(1 + static_cast<int>(l % 2), residual_.size(1));
    at::Tensor sums;
    const int64_t block = rows_of_a_block(l);
    if (block < inputs(l) && r.none() && v.size(1) > 0) {
      // On the side of the rows: D = Z^T V and d = c Z^T 1 with c = alpha / alpha_bias and Z = (V V^T + c 1
      // 1^T
      // + alpha I)^{-1} R, and the residual that the full step would leave is alpha Z, so that the new one
      // costs no product. Of several blocks of rows, the average of their D: what the others' do to a block's
      // residual is then left out of the new one.
      const at::Tensor z = scratch(0, residual_.size(1));
      const double bias_gain = alpha / alpha_bias;
      solve_row_blocks(v, block, alpha, layer.bias() ? bias_gain : 0, residual_, z, name.c_str());
      const double part = nu * static_cast<double>(block) / static_cast<double>(v.size(0));
      at::Tensor weight = next.weight;
      at::addmm_out(weight, map.weight, z.t(), v, 1, part);
      if (layer.bias()) {
        at::Tensor new_bias = next.bias;
        at::add_out(new_bias, map.bias, z.sum(0), as_held_by(z, part * bias_gain));
      }
      sums = passes::relaxed_residual(residual_, z, 1 - part, part * alpha, out);
    } else {
      // The part nu of the minimiser's step; with kinks, where that would leave zeros and norms, the
      // minimiser of what the step takes for a model (docs/relaxed.md).
      const bool smooth = r.quadratic();
      if (!smooth && nu == 0) {
        copy_map(map, next);
        return;
      }
      out.copy_(residual_);
      WeightBlock(v, layer.outputs(), layer.bias(), {1, alpha, alpha_bias, r, false, smooth ? 1 : nu},
                  /*always_primal=*/false, name.c_str())
          .solve(out, map, next);
      if (!smooth) {
        const AffineMap step = zeros_like(map);
        difference_out({next}, {map}, {step});
        affine_residual_out(residual_, v, step, out);
        residual_ = out;
        residual_sums_ = passes::row_sums_of_squares(out);
        return;
      }
      at::Tensor step = next.weight;
      step.sub_(map.weight).mul_(nu);
      at::addmm_out(out, residual_, v, step.t(), 1, -1);
      step.add_(map.weight);
      if (layer.bias()) {
        at::Tensor bias_step = next.bias;
        bias_step.sub_(map.bias).mul_(nu);
        out.sub_(bias_step);
        bias_step.add_(map.bias);
      }
      sums = passes::row_sums_of_squares(out);
    }
    residual_ = out;
    residual_sums_ = sums;
  }

  // What the joint block of layer l - 1 minimises along a ray:
  // |R - (sigma(U + d) - V) W_l^T|^2 + ratio |S + d|^2, with S = U - P.
  struct StateProblem {
    functors::AnyActivation activation;
    at::Tensor weight;
    double ratio;            // rho_{l-1} / rho_l
    double scale;            // a power of two that the gradient is multiplied by
    at::Tensor scaled;       // the weight times that
    at::Tensor u, v, slack;  // slack undefined: zero
    at::Tensor residual;     // R
    at::Tensor direction;
    at::Tensor length;   // along the direction: one number, float64
    at::Tensor product;  // scratch like R; for has_line the direction's, J z W_l^T
    bool has_line;       // whether the product tells the value along the ray

    double keep() const { return slack.defined() ? 1 : 0; }
    const at::Tensor& slack_or_any() const { return slack.defined() ? slack : direction; }
  };

  struct StateMoved {
    at::Tensor slack, change, slack_sums, sums;  // sums: of the objective above
  };

  static void move_unchecked(const StateProblem& problem, StateMoved& moved) {
    moved.slack_sums =
        passes::state_move(problem.u, problem.v, problem.direction, problem.slack_or_any(),
                           problem.activation, problem.keep(), problem.length, moved.slack, moved.change);
  }

  static void move(const StateProblem& problem, StateMoved& moved) {
    if (problem.has_line) {
      const passes::LineMove line =
          passes::line_move(problem.u, problem.v, problem.direction, problem.slack_or_any(),
                            problem.activation, problem.keep(), problem.ratio, problem.residual,
                            problem.product, problem.weight, problem.length, moved.slack, moved.change);
      moved.slack_sums = line.slack_sums;
      moved.sums = line.sums;
      return;
    }
    move_unchecked(problem, moved);
    at::Tensor residual = problem.product;
    at::addmm_out(residual, problem.residual, moved.change, problem.weight.t(), 1, -1);
    moved.sums = passes::row_sums_of_squares(residual).add_(moved.slack_sums, problem.ratio);
  }

  // U and V of layer l - 1 together, on V = sigma(U).
  void joint_block(size_t l) {
    const size_t i = l - 1;
    const at::Tensor& weight = sweep_.next_maps[l].weight;
    const double ratio = rows_.penalties[i] / rows_.penalties[l];
    // W_N may have come from nowhere to the size of the targets in this very sweep.
    const double before = ratio / options_.penalty_ratio()[l];
    const double scale = gradient_scale(l + 1 == depth() ? std::max(before, rows_.target_square) : before);
    StateProblem problem{
        activation(i),
        weight,
        ratio,
        scale,
        scale == 1 ? weight : at::mul(weight, scale),
        sweep_.restored ? rows_.saved_u[i] : rows_.p[i],
        rows_.v[i],
        sweep_.restored ? rows_.slack[i].clone() : at::Tensor(),
        residual_,
        scratch(3, rows_.v[i].size(1)),
        {},
        scratch(0, residual_.size(1)),
        options_.state_steps()[l] == 1 && passes::has_line_move(activation(i), residual_.device())};
    if (std::holds_alternative<functors::Sign>(activation(i))) {
      set_flips(options_.over_relaxation()[l], problem);
    } else {
      set_direction(l, in_blocks(l) ? options_.row_blocks()[l] : 1, problem, rows_.change[i]);
    }
    StateMoved moved{rows_.slack[i], rows_.change[i], {}, {}};
    LazyValue decrease = kUnknown;
    if (in_blocks(l)) {
      move_unchecked(problem, moved);
    } else {
      at::Tensor start = residual_sums_;
      if (sweep_.restored) {
        start = passes::row_sums_of_squares(problem.slack).mul_(problem.ratio).add_(start);
      }
      move_checked(problem, start, moved);
      decrease = {0, rows_.penalties[l] / 2, start, moved.sums};
    }
    rows_.v[i].add_(moved.change);
    residual_ = moved.slack;
    residual_sums_ = moved.slack_sums;
    sweep_.progress.first_moved = std::min(sweep_.progress.first_moved, i);
    done("UV", i, std::move(decrease));
  }

  // A step that kinks or curvature make raise L is halved, and halved again, and at last dropped.
  void move_checked(StateProblem& problem, const at::Tensor& start, StateMoved& moved) {
    const at::Tensor before = at::sum(start);
    const auto fallen = [&] { return at::sum(moved.sums).le(before).item<bool>(); };
    move(problem, moved);
    for (int halving = 1; halving <= kHalvings && !fallen(); ++halving) {
      report_.halved += halving == 1 ? 1 : 0;
      problem.length.mul_(halving < kHalvings ? 0.5 : 0.0);
      move(problem, moved);
    }
  }

  // The direction z, and how far along it: `over_relaxation` times the minimiser of the problem with sigma
  // linearised, measured on every `stride`-th row.
  void set_direction(size_t l, int64_t stride, StateProblem& problem, const at::Tensor& image) {
    const int64_t steps = options_.state_steps()[l];
    const double omega = options_.over_relaxation()[l];
    const double cap = options_.cap()[l].value_or(0);
    const at::Tensor& z = problem.direction;
    at::Tensor gradient = z;
    at::mm_out(gradient, problem.residual, problem.scaled);
    at::Tensor squares = passes::state_direction(z, problem.u, problem.slack_or_any(), problem.activation,
                                                 problem.keep() * problem.ratio * problem.scale, z, image);
    if (steps == 1) {
      const auto sample = [stride](const at::Tensor& t) { return at::slice(t, 0, 0, std::nullopt, stride); };
      at::Tensor product = problem.product.narrow(0, 0, sample(image).size(0));
      at::mm_out(product, sample(image), problem.weight.t());
      const at::Tensor slope = at::sum(sample(squares));
      const at::Tensor curvature = square_norm(product).add_(slope, problem.ratio);
      problem.length = (slope * (omega / problem.scale)).div_(curvature.add_(kTiny));
    } else {
      conjugate_gradient(steps, problem, at::sum(squares));
      squares = passes::row_sums_of_squares(z);
      problem.length = at::full({}, omega, squares.options());
    }
    if (cap > 0) {
      const at::Tensor moved_by = at::sum(squares).mul_(problem.length).mul_(problem.length);
      const double most = cap * cap * input_square_;  // V has not moved since the weights read it
      problem.length.mul_((most / moved_by.add_(kTiny)).clamp_max_(1).sqrt_());
    }
  }

  // The direction where sigma is a sign, whose derivative says nothing: row by row the unit whose flip lowers
  // the problem most, then the best one given that, as far as an eighth of the units. A flipped unit goes
  // across zero, by `over_relaxation` times the batch's mean |u|, so that the layer before is drawn there.
  void set_flips(double omega, StateProblem& problem) const {
    const at::Tensor gram = at::mm(problem.scaled.t(), problem.weight);
    at::Tensor gradient = at::mm(problem.residual, problem.scaled);
    const at::Tensor jump = problem.v * -2;
    const at::Tensor move = (problem.v * problem.u.abs().mean().mul_(omega)).add_(problem.u).neg_();
    at::Tensor cost = move.square();
    if (problem.slack.defined()) {
      cost.addcmul_(problem.slack, move, 2);
    }
    cost.mul_(problem.ratio * problem.scale).addcmul_(jump.square(), gram.diagonal());
    at::Tensor direction = problem.direction;
    direction.zero_();
    for (int64_t flips = std::max<int64_t>(1, problem.u.size(1) / 8); flips > 0; --flips) {
      const auto [gain, unit] = at::max((jump * gradient).mul_(2).sub_(cost), 1, /*keepdim=*/true);
      const at::Tensor flipped = at::gt(gain, 0).to(gain.scalar_type());
      gradient.addcmul_(at::index_select(gram, 0, unit.squeeze(1)), at::gather(jump, 1, unit).mul_(flipped),
                        -1);
      direction.scatter_add_(1, unit, at::gather(move, 1, unit).mul_(flipped));
      cost.scatter_(1, unit, std::numeric_limits<double>::infinity());  // not again
    }
    problem.length = at::ones({}, problem.u.options().dtype(at::kDouble));
  }

  // Replaces the direction z, the negative gradient, by `steps` steps of conjugate gradients on
  // |R - J d W^T|^2 + ratio |S + d|^2, times the problem's scale. `squares` is |z|^2.
  void conjugate_gradient(int64_t steps, const StateProblem& problem, at::Tensor squares) const {
    const at::Tensor slope = passes::activation_derivative(problem.u, problem.activation);
    at::Tensor along = problem.direction.clone();
    at::Tensor remaining = problem.direction.clone();  // the negative gradient at d
    at::Tensor d = at::zeros_like(along);
    for (int64_t k = 0;; ++k) {
      const at::Tensor product = at::mm(slope * along, problem.weight.t());
      const at::Tensor curvature = square_norm(product).add_(square_norm(along), problem.ratio);
      const at::Tensor length = squares / curvature.mul_(problem.scale).add_(kTiny);
      d.addcmul_(along, length.to(along.scalar_type()));
      if (k + 1 == steps) {
        break;
      }
      const at::Tensor image =
          at::mm(product, problem.scaled).mul_(slope).add_(along, problem.ratio * problem.scale);
      remaining.addcmul_(image, length.to(along.scalar_type()), -1);
      const at::Tensor next = square_norm(remaining);
      along.mul_(next / (squares + kTiny)).add_(remaining);
      squares = next;
    }
    at::Tensor direction = problem.direction;
    direction.copy_(d);
  }

  double loss_weight_;  // of a row
  bool clamped_;
  at::Tensor residual_;       // U_l - V_{l-1} W_l^T - 1 b_l^T of the layer at hand
  at::Tensor residual_sums_;  // its rows' sums of squares, (n, 1)
  double input_square_ = 0;   // |V_{l-1}|^2 of what that layer has read
  RelaxedReport report_;
};

}  // namespace

RelaxedReport sweep_relaxed(const RelaxedSweep& sweep) { return RelaxedBlocks(sweep).run(); }

}  // namespace torchbcd
