#include "sweeps/relaxed.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "blocks/input_metric.h"
#include "blocks/least_squares.h"
#include "blocks/relaxed_states.h"
#include "blocks/state_map_step.h"
#include "blocks/weight_terms.h"
#include "kernels/passes.h"
#include "sweeps/relaxed_skips.h"

namespace torchbcd {
namespace {

constexpr double kLeastColumn = 1e-30;
// The decrease of a block that was fitted on blocks of rows.
const LazyValue kUnknown = {std::numeric_limits<double>::quiet_NaN(), 0, {}, {}};

class RelaxedBlocks : Blocks<RelaxedSweep> {
 public:
  explicit RelaxedBlocks(const RelaxedSweep& sweep)
      : Blocks(sweep),
        totals_(rows_.totals(problem_.sum_over_ranks)),
        loss_weight_(row_loss_weight(options_, rows_.population)),
        clamped_(problem_.clamped()),
        state_maps_(problem_.state_maps(sweep.maps, rows_.masks)),
        sums_(depth()),
        skips_(problem_.skips, depth()) {}

  RelaxedReport run() {
    sweep_.progress = {depth(), sweep_.restored ? 0 : depth()};
    report_.penalties = rows_.penalties;
    begin_sums(depth() - 1);
    measure();
    output_block();
    for (size_t l = depth(); l-- > 0;) {
      weight_block(l);
      if (l > 0) {
        map_block(l);
        joint_block(l);
      }
    }
    total_report();
    return std::move(report_);
  }

 private:
  // What blocks ask of the point before the sweep, in one sum over processes: |V|^2 of what every layer
  // reads, since none moves before the layer behind it has read it, the loss, and what persists of the
  // slacks.
  void measure() {
    std::vector<at::Tensor> squared;
    for (size_t l = 0; l < depth(); ++l) {
      squared.push_back(totals_.scaled(input(l)));
    }
    for (size_t l = 0; sweep_.restored && l < depth(); ++l) {
      squared.push_back(totals_.scaled(rows_.slack[l]));
    }
    std::vector<double> squares = passes::sums_of_squares(squared);
    loss_before_ = clamped_ ? 0 : loss_here(rows_.v.back());
    std::vector<double*> numbers = {&loss_before_};
    for (double& square : squares) {
      numbers.push_back(&square);
    }
    totals_.add_up(numbers);
    const auto end_of_inputs = squares.begin() + static_cast<std::ptrdiff_t>(depth());
    input_squares_.assign(squares.begin(), end_of_inputs);
    slack_squares_.assign(end_of_inputs, squares.end());
  }

  // Where there are several processes, a W block's two sums over them are begun before it is that block's
  // turn, and are under way while something else is computed. The first one, of its inputs, which no block
  // moves before this one has read them: while the layer behind waits for its own. Not where the block has
  // other inputs.
  void begin_sums(size_t l) {
    const Trained trained = problem_.trained[l];
    if (totals_.several() && !sums_[l] && trained.affine() && !may_standardize(l)) {
      const at::Tensor read = trained.weight ? input(l) : input(l).narrow(1, 0, 0);
      sums_[l].emplace(fitted_on(l, read, trained.bias && sweep_.maps[l].bias.defined(), false));
    }
  }
  // The second one, of its residual too: while the block before is checked, as if that were good.
  void begin_cross(size_t l, const at::Tensor& residual) {
    begin_sums(l);
    if (sums_[l]) {
      sums_[l]->start_cross(residual);
    }
  }

  // What the report has measured of the rows here, of all processes: whoever reads it, reads alone.
  void total_report() {
    if (!totals_.several()) {
      return;
    }
    std::vector<at::Tensor*> measured = {&report_.before.plus, &report_.before.minus};
    for (BlockDecrease& block : report_.decreases) {
      measured.push_back(&block.decrease.plus);
      measured.push_back(&block.decrease.minus);
    }
    std::vector<at::Tensor> sums;
    for (const at::Tensor* part : measured) {
      sums.push_back(part->defined() ? at::sum(*part).to(at::kDouble)
                                     : at::zeros({}, rows_.x.options().dtype(at::kDouble)));
    }
    sums = totals_.of(sums);
    for (size_t i = 0; i < measured.size(); ++i) {
      *measured[i] = sums[i];
    }
  }

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

  double loss_here(const at::Tensor& v) const {
    return loss_weight_ * weighted_loss(rows_.y, v, problem_.loss, rows_.weights.weight);
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
        constant += rows_.penalties[i] / 2 * slack_squares_[i];
      }
    }
    if (clamped_) {
      residual_sums_ = totals_.weighed(passes::row_difference(rows_.y, rows_.p[l], slack));
      rows_.v[l].copy_(rows_.y);
      report_.before = {constant, rho / 2, residual_sums_, {}};
    } else {
      report_.before.constant = constant + loss_before_;
      const double before = loss_before_ + (sweep_.restored ? rho / 2 * slack_squares_[l] : 0);
      const at::Tensor u = scratch(0, slack.size(1));
      if (functors::is_identity(activation(l))) {
        // A row's weight is one of both its terms, so that its minimiser does not depend on it.
        passes::loss_update(rows_.y, rows_.p[l], at::ones({1, 1}, slack.options()), problem_.loss, {},
                            loss_weight_, rho, u);
        rows_.v[l].copy_(u);
      } else {
        passes::prox_activation(rows_.y, rows_.p[l], activation(l), rho / loss_weight_, u);
        passes::activation(u, activation(l), rows_.v[l]);
      }
      residual_sums_ = totals_.weighed(passes::row_difference(u, rows_.p[l], slack));
      decrease = {before - totals_.of(loss_here(rows_.v[l])), rho / 2, {}, residual_sums_};
    }
    residual_ = slack;
    sweep_.progress.first_moved = sweep_.restored ? 0 : l;
    done("V", l, decrease);
  }

  // W_l and b_l: part of the way to the proximal ridge regression of the residual on the states that the
  // layer has read.
  void weight_block(size_t l) {
    skips_.before_weights(l, residual_);
    sweep_.progress.first_updated = l;
    if (frozen(l)) {
      return;
    }
    const at::Tensor before = residual_sums_;
    const TrainedLayer layer = trained_layer(l, input(l));
    if (!may_standardize(l) || !fit_standardized(layer)) {
      fit(l, layer, input_squares_[l]);
    }
    const AffineMap& map = sweep_.maps[l];
    LazyValue decrease = {regularizer(l, map) - regularizer(l, sweep_.next_maps[l]), rows_.penalties[l] / 2,
                          before, residual_sums_};
    done("W", l, in_blocks(l) ? kUnknown : std::move(decrease));
  }

  // The first layer's Gram matrix is the same in every sweep over bound rows.
  WeightInputs fitted_on(size_t l, const at::Tensor& v, bool bias, bool standardized) {
    WeightInputs inputs{v, bias, problem_.sum_over_ranks, totals_.weights()};
    if (l == 0 && rows_.input_gram.enabled) {
      inputs.kept_gram = rows_.input_gram.of(problem_.trained[l], standardized);
    }
    return inputs;
  }

  bool may_standardize(size_t l) const {
    return l == 0 && sweep_.standardize && problem_.trained[l].weight &&
           options_.weight_regularizer()[l].none();
  }

  // The first layer's step on standardised inputs, from zero; then what it is on the inputs. False, and
  // nothing done, where these do not vary.
  bool fit_standardized(const TrainedLayer& layer) {
    const InputMetric metric(rows_.x, layer.bias(), totals_);
    const at::Tensor standardized = metric.standardized(rows_.x);
    const double square = totals_.of(passes::sum_of_squares(totals_.scaled(standardized)));
    if (square == 0) {
      return false;
    }
    fit(0, {standardized, zeros_like(layer.map), layer.next}, square, /*is_standardized=*/true);
    metric.to_inputs_(layer.next);
    add_map_(layer.next, layer.map);
    return true;
  }

  // The step itself; the residual that it leaves takes the place of the old one. `square` is |V|^2.
  void fit(size_t l, const TrainedLayer& layer, double square, bool is_standardized = false) {
    const auto& [v, map, next] = layer;
    // Relative to the square of what each multiplies: a column of inputs, and for a bias one of ones, so that
    // large inputs do not bind it.
    const double column = std::max(square / static_cast<double>(inputs(l)), kLeastColumn);
    const double damping = options_.damping_of(l, rows_.classes);
    const double alpha = damping * column;
    const double alpha_bias = damping * std::min(column, rows_.population);
    const std::string name = where("W", l);
    const double nu = options_.relaxation_of(l);
    const WeightRegularizer& r = options_.weight_regularizer()[l];
    at::Tensor out = scratch(1 + static_cast<int>(l % 2), residual_.size(1));
    at::Tensor sums;
    const int64_t block = rows_of_a_block(l);
    if (block < inputs(l) && r.none() && v.size(1) > 0 && totals_.plain()) {
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
      const WeightInputs inputs = fitted_on(l, v, layer.bias(), is_standardized);
      std::optional<WeightSums>& of_rows = sums_[l];
      if (totals_.several()) {
        if (!of_rows) {
          of_rows.emplace(inputs);
        }
        if (!of_rows->has_cross()) {
          of_rows->start_cross(residual_);
        }
        if (l > 0) {
          begin_sums(l - 1);
        }
      }
      WeightBlock(inputs, layer.outputs(), {1, alpha, alpha_bias, r, false, smooth ? 1 : nu},
                  /*always_primal=*/false, name.c_str(), of_rows ? &*of_rows : nullptr)
          .solve(of_rows ? residual_ : out.copy_(residual_), map, next);
      of_rows.reset();
      if (smooth) {
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
      } else {
        const AffineMap step = zeros_like(map);
        difference_out({next}, {map}, {step});
        affine_residual_out(residual_, v, step, out);
      }
      sums = totals_.weighed(passes::row_sums_of_squares(out));
    }
    residual_ = out;
    residual_sums_ = sums;
  }

  // The parameters of the map that makes V of layer l - 1.
  void map_block(size_t l) {
    const size_t i = l - 1;
    const AffineMap& next = sweep_.next_maps[i];
    copy_map(state_map_part(sweep_.maps[i]), next);
    if (!problem_.trained[i].state_map()) {
      return;
    }
    const std::vector<SkipReader> skips = skips_of(i);
    const at::Tensor& weight = sweep_.next_maps[l].weight;
    std::optional<StateMapMoved> moved =
        state_map_step({state_maps_[i], problem_.trained[i], weight, state_scale(l),
                        sweep_.restored ? rows_.saved.u[i] : rows_.p[i], rows_.v[i], residual_, skips,
                        options_.damping_of(i, rows_.classes), options_.relaxation_of(i)},
                       residual_sums_, totals_);
    LazyValue decrease = {0, 0, {}, {}};
    if (moved) {
      StateMap& map = state_maps_[i] = moved->map;
      copy_map({{}, {}, map.scale, map.shift, map.slope}, next);
      rows_.v[i].add_(moved->change);
      residual_ = moved->residual;
      residual_sums_ = moved->sums;
      skips_.moved(skips, moved->skip_residuals);
      decrease = {0, rows_.penalties[l] / 2, moved->start, moved->end};
    }
    done("map", i, std::move(decrease));
  }

  // What gradients by V of layer l - 1 are multiplied by on their way.
  double state_scale(size_t l) const {
    // W_N may have come from nowhere to the size of the targets in this very sweep.
    const double before = rows_.penalties[l - 1] / rows_.penalties[l] / options_.penalty_ratio()[l];
    return gradient_scale(l + 1 == depth() ? std::max(before, rows_.target_square) : before);
  }

  // U and V of layer l - 1 together, on V = map(U).
  void joint_block(size_t l) {
    const size_t i = l - 1;
    const at::Tensor& weight = sweep_.next_maps[l].weight;
    const double ratio = rows_.penalties[i] / rows_.penalties[l];
    const double scale = state_scale(l);
    std::vector<SkipReader> skips = skips_of(i);
    const StateMap& map = state_maps_[i];
    StateProblem problem{map,
                         weight,
                         ratio,
                         scale,
                         scale == 1 ? weight : at::mul(weight, scale),
                         sweep_.restored ? rows_.saved.u[i] : rows_.p[i],
                         rows_.v[i],
                         sweep_.restored ? rows_.slack[i].clone() : at::Tensor(),
                         residual_,
                         scratch(3, rows_.v[i].size(1)),
                         {},
                         scratch(0, residual_.size(1)),
                         options_.state_steps()[l] == 1 && skips.empty() && map.elementwise() &&
                             !map.mask.defined() && passes::has_line_move(map.activation, residual_.device()),
                         std::move(skips)};
    if (functors::is_discrete(activation(i))) {
      set_flips(problem, options_.over_relaxation()[l], rows_.population, totals_);
    } else {
      // U's moves are measured by the size of V, as the weights have read it, and where that is normalised by
      // U's own spread.
      const double square = problem_.normalized(i) ? rows_.spreads[i] * rows_.population *
                                                         static_cast<double>(rows_.v[i].size(1))
                                                   : input_squares_[l];
      set_direction(problem,
                    {options_.state_steps()[l], options_.over_relaxation()[l], options_.cap()[l].value_or(0),
                     in_blocks(l) ? options_.row_blocks()[l] : 1, square},
                    rows_.change[i], totals_);
    }
    StateMoved moved{rows_.slack[i], rows_.change[i], {}, {}};
    LazyValue decrease = kUnknown;
    if (in_blocks(l)) {
      move_unchecked(problem, moved);
    } else {
      at::Tensor start = residual_sums_;
      if (sweep_.restored) {
        start = totals_.weighed(passes::row_sums_of_squares(problem.slack)).mul_(problem.ratio).add_(start);
      }
      if (!problem.skips.empty()) {
        start = start + totals_.weighed(skip_sums(problem.skips, residuals_of(problem.skips)));
      }
      const auto meanwhile = [&] { begin_cross(i, moved.slack); };
      report_.halved += move_checked(problem, start, moved, totals_, meanwhile) ? 1 : 0;
      decrease = {0, rows_.penalties[l] / 2, start, moved.sums};
    }
    skips_.moved(l, problem, moved);
    rows_.v[i].add_(moved.change);
    residual_ = moved.slack;
    residual_sums_ = moved.slack_sums;
    sweep_.progress.first_moved = std::min(sweep_.progress.first_moved, i);
    done("UV", i, std::move(decrease));
  }

  // The layers further on that read U or V of layer i as they are. Conjugate gradients need the gradient
  // itself.
  std::vector<SkipReader> skips_of(size_t i) const {
    return skips_.readers(i, rows_.penalties, /*before_branch=*/options_.state_steps()[i + 1] == 1);
  }

  static std::vector<at::Tensor> residuals_of(const std::vector<SkipReader>& skips) {
    std::vector<at::Tensor> residuals;
    for (const SkipReader& skip : skips) {
      residuals.push_back(skip.residual);
    }
    return residuals;
  }

  Totals totals_;
  double loss_weight_;  // of a row
  bool clamped_;
  std::vector<StateMap> state_maps_;  // at their parameters as they are by now
  at::Tensor residual_;               // U_l - V_{l-1} W_l^T - 1 b_l^T of the layer at hand
  at::Tensor residual_sums_;          // its rows' sums of squares, (n, 1)
  double loss_before_ = 0;
  std::vector<double> slack_squares_;            // |U - P|^2 of each layer, where they persist
  std::vector<double> input_squares_;            // |V_{l-1}|^2 of what each layer reads
  std::vector<std::optional<WeightSums>> sums_;  // of W blocks to come
  SkipResiduals skips_;
  RelaxedReport report_;
};

}  // namespace

RelaxedReport sweep_relaxed(const RelaxedSweep& sweep) { return RelaxedBlocks(sweep).run(); }

}  // namespace torchbcd
