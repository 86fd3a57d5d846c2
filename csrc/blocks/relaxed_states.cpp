#include "blocks/relaxed_states.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
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
#include <vector>

#include "kernels/passes.h"

namespace torchbcd {
namespace {

constexpr double kTiny = 1e-290;  // keeps a quotient of sums, which are float64, from 0 / 0
// How often a step is halved where kinks or curvature make it raise the objective, before it is dropped.
constexpr int kHalvings = 5;

// |x|^2 over the rows here as one number on the data's device, which nothing waits for.
at::Tensor square_norm(const at::Tensor& x, const Totals& totals) {
  return at::sum(totals.weighed(passes::row_sums_of_squares(x)));
}

// <a, b> over the rows here as one number on the data's device, in float64, where small ones do not vanish.
at::Tensor inner_product(const at::Tensor& a, const at::Tensor& b, const Totals& totals) {
  const at::Tensor products = a.to(at::kDouble) * b;
  return at::sum(totals.weighted() ? products * totals.weights().weight : products);
}

// Times the mask, in place.
at::Tensor masked(const StateProblem& problem, at::Tensor t) {
  return problem.map.mask.defined() ? t.mul_(problem.map.mask) : t;
}

// What T moves by where U moves by `u` and V by `v`.
at::Tensor skipped_move(const SkipReader& skip, const at::Tensor& u, const at::Tensor& v) {
  return skip.reads_u && skip.reads_v ? u + v : skip.reads_u ? u : v;
}

// Adds the skips' part of the negative gradient, times the problem's scale: of V to what J multiplies, of U
// to what stands for the slack.
struct Pulls {
  at::Tensor slack;
  double keep;
};
Pulls add_pulls(const StateProblem& problem, const at::Tensor& gradient) {
  Pulls pulls{problem.slack_or_any(), problem.keep() * problem.ratio * problem.scale};
  at::Tensor own;
  for (const SkipReader& skip : problem.skips) {
    const double weight = skip.ratio * problem.scale;
    if (skip.reads_u) {
      own =
          own.defined() ? own : at::mul(pulls.slack, pulls.keep);  // before it, which it may be, has changed
      own.sub_(skip.wanted, weight);
    }
    if (skip.reads_v) {
      gradient.add_(skip.wanted, weight);
    }
  }
  return own.defined() ? Pulls{own, 1} : pulls;
}

// The slope along z of half the negative problem with the map linearised, and the skips' part of its
// curvature.
at::Tensor slope_along(const StateProblem& problem, const at::Tensor& image, const at::Tensor& product,
                       const Totals& totals) {
  const at::Tensor& z = problem.direction;
  at::Tensor slope = inner_product(product, problem.residual, totals);
  if (problem.slack.defined()) {
    slope.sub_(inner_product(problem.slack, z, totals), problem.ratio);
  }
  for (const SkipReader& skip : problem.skips) {
    slope.add_(inner_product(skip.residual, skipped_move(skip, z, image), totals), skip.ratio);
  }
  return slope;
}
at::Tensor skip_curvature(const StateProblem& problem, const at::Tensor& z, const at::Tensor& image,
                          const Totals& totals) {
  at::Tensor curvature = at::zeros({}, z.options().dtype(at::kDouble));
  for (const SkipReader& skip : problem.skips) {
    curvature.add_(square_norm(skipped_move(skip, z, image), totals), skip.ratio);
  }
  return curvature;
}

// z = J^T g - keep S and its image J z, where g is `gradient`; returns |z|^2 of each row. z may be g.
at::Tensor gradient_and_image(const StateProblem& problem, const at::Tensor& gradient, const Pulls& pulls,
                              const at::Tensor& z, const at::Tensor& image) {
  if (problem.map.elementwise()) {
    masked(problem, gradient);
    const at::Tensor squares = passes::state_direction(gradient, problem.u, pulls.slack,
                                                       problem.map.activation, pulls.keep, z, image);
    masked(problem, image);
    return squares;
  }
  const StateTangent tangent = problem.map.tangent(problem.u);
  z.copy_(tangent.pulled(gradient));
  if (pulls.keep != 0) {
    z.sub_(pulls.slack, pulls.keep);
  }
  image.copy_(tangent.along(z));
  return passes::row_sums_of_squares(z);
}

// Replaces the direction z, the negative gradient, by `steps` steps of conjugate gradients on
// |R - J d W^T|^2 + ratio |S + d|^2, times the problem's scale. `squares` is |z|^2.
void conjugate_gradient(int64_t steps, const StateProblem& problem, at::Tensor squares,
                        const Totals& totals) {
  const StateTangent tangent = problem.map.tangent(problem.u);
  at::Tensor along = problem.direction.clone();
  at::Tensor remaining = problem.direction.clone();  // the negative gradient at d
  at::Tensor d = at::zeros_like(along);
  for (int64_t k = 0;; ++k) {
    const at::Tensor moved = tangent.along(along);
    const at::Tensor product = at::mm(moved, problem.weight.t());
    at::Tensor curved = square_norm(product, totals);
    if (!problem.skips.empty()) {
      curved.add_(skip_curvature(problem, along, moved, totals));
    }
    const std::vector<at::Tensor> sums = totals.of({curved, square_norm(along, totals)});
    const at::Tensor curvature = at::add(sums[0], sums[1], problem.ratio);
    const at::Tensor length = squares / curvature.mul_(problem.scale).add_(kTiny);
    d.addcmul_(along, length.to(along.scalar_type()));
    if (k + 1 == steps) {
      break;
    }
    at::Tensor image =
        tangent.pulled(at::mm(product, problem.scaled)).add_(along, problem.ratio * problem.scale);
    for (const SkipReader& skip : problem.skips) {
      const at::Tensor step = skipped_move(skip, along, moved);
      image.add_(skip.reads_u && skip.reads_v ? step + tangent.pulled(step)
                 : skip.reads_v               ? tangent.pulled(step)
                                              : step,
                 skip.ratio * problem.scale);
    }
    remaining.addcmul_(image, length.to(along.scalar_type()), -1);
    const at::Tensor next = totals.of(square_norm(remaining, totals));
    along.mul_(next / (squares + kTiny)).add_(remaining);
    squares = next;
  }
  at::Tensor direction = problem.direction;
  direction.copy_(d);
}

// The mean of |u| over the entries of all processes.
at::Tensor mean_size(const at::Tensor& u, double population, const Totals& totals) {
  if (totals.plain()) {
    return u.abs().mean();
  }
  const double entries = population * static_cast<double>(u.size(1));
  const at::Tensor sizes = totals.weighted() ? u.abs() * totals.weights().weight : u.abs();
  return totals.of(sizes.sum(at::kDouble)).div_(entries).to(u.scalar_type());
}

void move_rows(const StateProblem& problem, StateMoved& moved) {
  if (problem.has_line) {
    const passes::LineMove line =
        passes::line_move(problem.u, problem.v, problem.direction, problem.slack_or_any(),
                          problem.map.activation, problem.keep(), problem.ratio, problem.residual,
                          problem.product, problem.weight, problem.length, moved.slack, moved.change);
    moved.slack_sums = line.slack_sums;
    moved.sums = line.sums;
    return;
  }
  move_unchecked(problem, moved);
  at::Tensor residual = problem.product;
  at::addmm_out(residual, problem.residual, moved.change, problem.weight.t(), 1, -1);
  moved.sums = passes::row_sums_of_squares(residual).add_(moved.slack_sums, problem.ratio);
  if (problem.skips.empty()) {
    return;
  }
  moved.skip_residuals.clear();
  const at::Tensor step = problem.slack.defined() ? moved.slack - problem.slack : moved.slack;
  for (const SkipReader& skip : problem.skips) {
    moved.skip_residuals.push_back(skip.residual - skipped_move(skip, step, moved.change));
  }
  moved.sums.add_(skip_sums(problem.skips, moved.skip_residuals));
}

void move(const StateProblem& problem, StateMoved& moved, const Totals& totals) {
  move_rows(problem, moved);
  totals.weighed(moved.sums);
  totals.weighed(moved.slack_sums);
}

}  // namespace

double gradient_scale(double square) {
  constexpr double kUsual = 0x1p40;
  return square > 1 / kUsual && square < kUsual ? 1 : std::exp2(-std::rint(std::log2(square)));
}

at::Tensor skip_sums(const std::vector<SkipReader>& skips, const std::vector<at::Tensor>& residuals) {
  at::Tensor sums;
  for (size_t k = 0; k < skips.size(); ++k) {
    const at::Tensor own = passes::row_sums_of_squares(residuals[k]).mul_(skips[k].ratio);
    sums = sums.defined() ? sums.add_(own) : own;
  }
  return sums;
}

void set_direction(StateProblem& problem, const StateStep& step, const at::Tensor& image,
                   const Totals& totals) {
  const at::Tensor& z = problem.direction;
  at::Tensor gradient = z;
  at::mm_out(gradient, problem.residual, problem.scaled);
  const Pulls pulls = add_pulls(problem, gradient);
  at::Tensor squares = totals.weighed(gradient_and_image(problem, gradient, pulls, z, image));
  at::Tensor square;  // |z|^2 over all rows, where it is known
  if (step.steps == 1) {
    const auto sample = [&](const at::Tensor& t) { return at::slice(t, 0, 0, std::nullopt, step.stride); };
    at::Tensor product = problem.product.narrow(0, 0, sample(image).size(0));
    at::mm_out(product, sample(image), problem.weight.t());
    std::vector<at::Tensor> measured = {at::sum(sample(squares)), square_norm(product, totals)};
    if (!problem.skips.empty()) {  // where z is no gradient
      measured.push_back(slope_along(problem, image, product, totals));
      measured.push_back(skip_curvature(problem, z, image, totals));
    }
    const std::vector<at::Tensor> sums = totals.of(measured);
    square = step.stride == 1 ? sums[0] : square;
    at::Tensor curvature = at::add(sums[1], sums[0], problem.ratio);
    if (problem.skips.empty()) {
      problem.length = (sums[0] * (step.omega / problem.scale)).div_(curvature.add_(kTiny));
    } else {
      curvature.add_(sums[3]);
      problem.length = (sums[2] * step.omega).clamp_min_(0).div_(curvature.add_(kTiny));
    }
  } else {
    conjugate_gradient(step.steps, problem, totals.of(at::sum(squares)), totals);
    squares = totals.weighed(passes::row_sums_of_squares(z));
    problem.length = at::full({}, step.omega, squares.options());
  }
  if (step.cap > 0) {
    square = square.defined() ? square : totals.of(at::sum(squares));
    const at::Tensor moved_by = at::mul(square, problem.length).mul_(problem.length);
    const double most = step.cap * step.cap * step.input_square;  // V has not moved since the weights read it
    problem.length.mul_((most / moved_by.add_(kTiny)).clamp_max_(1).sqrt_());
  }
}

void set_flips(StateProblem& problem, double omega, double population, const Totals& totals) {
  const at::Tensor gram = at::mm(problem.scaled.t(), problem.weight);
  at::Tensor gradient = at::mm(problem.residual, problem.scaled);
  const at::Tensor jump = problem.v * -2;
  const at::Tensor move =
      (problem.v * mean_size(problem.u, population, totals).mul_(omega)).add_(problem.u).neg_();
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

void move_unchecked(const StateProblem& problem, StateMoved& moved) {
  if (problem.map.elementwise()) {
    const at::Tensor from =
        problem.map.mask.defined() ? passes::activation(problem.u, problem.map.activation) : problem.v;
    moved.slack_sums =
        passes::state_move(problem.u, from, problem.direction, problem.slack_or_any(), problem.map.activation,
                           problem.keep(), problem.length, moved.slack, moved.change);
    masked(problem, moved.change);
    return;
  }
  at::mul_out(moved.slack, problem.direction, problem.length);
  problem.map.out(problem.u + moved.slack, moved.change);
  moved.change.sub_(problem.v);
  if (problem.slack.defined()) {
    moved.slack.add_(problem.slack);
  }
  moved.slack_sums = passes::row_sums_of_squares(moved.slack);
}

bool move_checked(StateProblem& problem, const at::Tensor& start, StateMoved& moved, const Totals& totals,
                  const std::function<void()>& meanwhile) {
  const at::Tensor before = at::sum(start);
  const auto fallen = [&] {
    const at::Tensor from = totals.several() ? before.clone() : before;
    const at::Tensor to = at::sum(moved.sums);
    PendingSum pending = totals.begin({from, to});
    meanwhile();
    pending.wait();
    return to.le(from).item<bool>();
  };
  bool shortened = false;
  move(problem, moved, totals);
  for (int halving = 1; !fallen(); ++halving) {
    shortened = true;
    problem.length.mul_(halving < kHalvings ? 0.5 : 0.0);
    move(problem, moved, totals);
    if (halving == kHalvings) {  // it has not moved, which needs no check
      meanwhile();
      break;
    }
  }
  return shortened;
}

}  // namespace torchbcd
