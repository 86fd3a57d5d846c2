#include "blocks/joint_states.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <variant>

#include "kernels/passes.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int kSteps = 500;
constexpr int64_t kNumbers = 1 << 22;  // of the matrices of the rows that are done together
constexpr double kGradientRounding =
    1e-13;                         // of a gradient, relative to the greatest term that cancels in it
constexpr double kHidden = 1e-10;  // of the objective: a decrease that its rounding may hide
// The damping, in units of the greatest gamma: after the first step that fails or goes too far, from one to
// the next, where it is dropped, and where a row is given up.
constexpr double kFirstDamping = 1e-3, kDampingFactor = 8, kLeastDamping = 1e-6, kMostDamping = 1e9;

// The greatest |entry| of every row, (m, 1).
at::Tensor row_max(const at::Tensor& matrix) { return matrix.abs().amax(1, /*keepdim=*/true); }

// A point of some rows, with what a step from there has to know.
struct RowsAt {
  Tensors v, slope, gradient;  // slope[l] = sigma_l' of the layer's product, l > 0
  at::Tensor value;            // of every row, as the next two
  at::Tensor steepest;         // the greatest entry of the gradient
  at::Tensor rounding;         // what it may be but for rounding

  template <typename F>
  RowsAt map(const F& f) const {
    const auto all = [&](const Tensors& tensors) {
      Tensors mapped;
      for (const at::Tensor& t : tensors) {
        mapped.push_back(t.defined() ? f(t) : t);
      }
      return mapped;
    };
    return {all(v), all(slope), all(gradient), f(value), f(steepest), f(rounding)};
  }
};

// Where `good`, (m, 1), takes what `from` has.
void take(const at::Tensor& good, const RowsAt& from, RowsAt& into) {
  const auto each = [&](const at::Tensor& a, at::Tensor& b) { b = b.defined() ? at::where(good, a, b) : b; };
  for (size_t l = 0; l < into.v.size(); ++l) {
    each(from.v[l], into.v[l]);
    each(from.slope[l], into.slope[l]);
    each(from.gradient[l], into.gradient[l]);
  }
  each(from.value, into.value);
  each(from.steepest, into.steepest);
  each(from.rounding, into.rounding);
}

// The problem of some rows, in float64.
struct RowsProblem {
  const JointStates* block;
  const std::vector<AffineMap>* maps;  // in float64
  at::Tensor first, y, weight;         // sigma_1 of the first product; (m, 1)

  size_t depth() const { return maps->size(); }
  const at::Tensor& matrix(size_t l) const { return (*maps)[l].weight; }

  RowsProblem select(const at::Tensor& index) const {
    return {block, maps, first.index_select(0, index), y.index_select(0, index),
            weight.index_select(0, index)};
  }

  RowsAt at(Tensors v) const {
    const at::Tensor error = (v.back() - y).mul_(weight);
    RowsAt point{std::move(v), Tensors(depth()), Tensors(depth()), {}, {}, {}};
    point.value = row_sum(error * (point.v.back() - y)).div_(2);
    at::Tensor scale = row_max(error);
    at::Tensor size = at::zeros_like(scale);
    for (size_t l = 0; l < depth(); ++l) {
      const double gamma = block->gamma[l];
      const double l2 = block->l2[l];
      const at::Tensor& v_l = point.v[l];
      at::Tensor residual;
      if (l == 0) {
        residual = v_l - first;
      } else {
        const at::Tensor product = at::empty_like(v_l);
        affine_out(point.v[l - 1], (*maps)[l], product);
        residual = v_l - passes::activation(product, block->activations[l]);
        point.slope[l] = passes::activation_derivative(product, block->activations[l]);
        const at::Tensor pull = at::mm(residual * point.slope[l], matrix(l)).mul_(gamma);
        point.gradient[l - 1].sub_(pull);
        scale = at::maximum(scale, row_max(pull));
      }
      point.value.add_(row_sum(residual.square()), gamma / 2).add_(row_sum(v_l.square()), l2 / 2);
      point.gradient[l] = residual * gamma + v_l * l2;
      scale = at::maximum(scale, at::maximum(row_max(residual) * gamma, row_max(v_l) * l2));
      size = at::maximum(size, row_max(v_l) * (gamma + l2));
    }
    point.gradient.back().add_(error);
    point.steepest = row_max(point.gradient.front());
    for (const at::Tensor& gradient : point.gradient) {
      point.steepest = at::maximum(point.steepest, row_max(gradient));
    }
    point.rounding = scale * kGradientRounding + size * (2 * unit_of(at::kDouble));
    return point;
  }

  // The step of (J^T J + damping) d = -gradient. With M_l = diag(sigma_l') W_l the system's diagonal blocks
  // are (gamma_l + l2_l + damping) I + gamma_{l+1} M_{l+1}^T M_{l+1}, that of V_N has the weight in place of
  // the last term, and those beside the diagonal are -gamma_l M_l. Eliminated from V_1 on.
  Tensors step(const RowsAt& point, const at::Tensor& damping) const {
    Tensors d;
    Tensors eliminated;  // of layer l: what d[l] changes by with d[l + 1], (m, d_l, d_{l+1})
    at::Tensor coupling;
    for (size_t l = 0; l < depth(); ++l) {
      const bool last = l + 1 == depth();
      const int64_t size = point.v[l].size(1);
      const at::Tensor m = last ? at::Tensor() : point.slope[l + 1].unsqueeze(2) * matrix(l + 1);
      at::Tensor diagonal = damping + (block->gamma[l] + block->l2[l]);
      at::Tensor system;
      if (last) {
        diagonal = diagonal + weight;
        system = at::zeros({point.v[l].size(0), size, size}, point.v[l].options());
      } else {
        system = at::bmm(m.transpose(1, 2), m).mul_(block->gamma[l + 1]);
      }
      system.diagonal(0, 1, 2).add_(diagonal);
      at::Tensor right = point.gradient[l].neg().unsqueeze(2);
      if (l > 0) {
        system.add_(at::bmm(coupling, eliminated.back()));
        right.sub_(at::bmm(coupling, d.back()));
      }
      const at::Tensor lower = std::get<0>(at::linalg_cholesky_ex(system));
      d.push_back(at::cholesky_solve(right, lower));
      if (!last) {
        coupling = m * -block->gamma[l + 1];
        eliminated.push_back(at::cholesky_solve(coupling.transpose(1, 2), lower).neg_());
      }
    }
    for (size_t l = depth() - 1; l-- > 0;) {
      d[l].add_(at::bmm(eliminated[l], d[l + 1]));
    }
    for (at::Tensor& each : d) {
      each = each.squeeze(2);
    }
    return d;
  }
};

// Sets `states` to what the steps lead to.
void descend(RowsProblem problem, const Tensors& states) {
  const double unit = *std::max_element(problem.block->gamma.begin(), problem.block->gamma.end());
  at::Tensor index = at::arange(states.front().size(0), problem.y.options().dtype(at::kLong));
  RowsAt point = problem.at(states);
  at::Tensor damping = at::zeros_like(point.value);
  for (int k = 0; k < kSteps && index.numel() > 0; ++k) {
    const Tensors d = problem.step(point, damping * unit);
    Tensors moved;
    at::Tensor promised = at::zeros_like(point.value);
    for (size_t l = 0; l < d.size(); ++l) {
      moved.push_back(point.v[l] + d[l]);
      promised.sub_(row_sum(point.gradient[l] * d[l]), 0.5);
    }
    const RowsAt trial = problem.at(std::move(moved));
    // Next to a minimiser the values say nothing any more, and the gradients still do.
    const at::Tensor hidden = promised.le(point.value * kHidden)
                                  .logical_and_(trial.value.le(point.value * (1 + 1e-14)))
                                  .logical_and_(trial.steepest.lt(point.steepest));
    const at::Tensor good = trial.value.lt(point.value).logical_or_(hidden);
    // Where the slope along the step has turned over by more than half, it went too far; a damping that lets
    // it go so far again would have the row swing about its minimiser.
    at::Tensor ahead = at::zeros_like(point.value);
    for (size_t l = 0; l < d.size(); ++l) {
      ahead.add_(row_sum(trial.gradient[l] * d[l]));
    }
    const at::Tensor short_enough = good.logical_and(ahead.le(promised));
    take(good, trial, point);
    const at::Tensor less = at::where(damping > kLeastDamping, damping / kDampingFactor, 0);
    damping = at::where(short_enough, less, (damping * kDampingFactor).clamp_min_(kFirstDamping));
    const at::Tensor done = point.steepest.le(point.rounding).logical_or_(damping > kMostDamping).squeeze(1);
    if (!done.any().item<bool>() && k + 1 < kSteps) {
      continue;
    }
    for (size_t l = 0; l < states.size(); ++l) {
      at::Tensor(states[l]).index_copy_(0, index, point.v[l]);
    }
    const at::Tensor left = done.logical_not().nonzero().squeeze(1);
    const auto keep = [&left](const at::Tensor& t) { return t.index_select(0, left); };
    index = keep(index);
    damping = keep(damping);
    point = point.map(keep);
    problem = problem.select(left);
  }
}

}  // namespace

bool is_smooth(const functors::AnyActivation& activation) {
  return std::visit([](const auto& f) { return f.continuous && f.kinks().empty(); }, activation);
}

void JointStates::minimise_(const Tensors& states, const at::Tensor& product, const at::Tensor& y,
                            const at::Tensor& weight) const {
  std::vector<AffineMap> exact;
  int64_t numbers = 1;  // of a row
  for (size_t l = 0; l < maps.size(); ++l) {
    const at::Tensor& bias = maps[l].bias;
    exact.push_back({maps[l].weight.to(at::kDouble), bias.defined() ? bias.to(at::kDouble) : bias});
    const int64_t d = states[l].size(1);
    numbers += 2 * d * d + (l > 0 ? 3 * d * states[l - 1].size(1) : 0);
  }
  const int64_t rows = product.size(0);
  const int64_t chunk = std::max<int64_t>(1, kNumbers / numbers);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const auto cut = [&](const at::Tensor& t) {
      return t.narrow(0, begin, std::min(chunk, rows - begin)).to(at::kDouble);
    };
    Tensors before;
    for (const at::Tensor& state : states) {
      before.push_back(cut(state));
    }
    const RowsProblem problem{this, &exact, passes::activation(cut(product), activations.front()), cut(y),
                              cut(weight)};
    const Tensors found = clone_all(before);
    descend(problem, found);
    Tensors rounded;
    for (size_t l = 0; l < states.size(); ++l) {
      rounded.push_back(found[l].to(states[l].scalar_type()).to(at::kDouble));
    }
    const at::Tensor lower = problem.at(rounded).value.le(problem.at(before).value);
    for (size_t l = 0; l < states.size(); ++l) {
      states[l].narrow(0, begin, before[l].size(0)).copy_(at::where(lower, rounded[l], before[l]));
    }
  }
}

}  // namespace torchbcd
