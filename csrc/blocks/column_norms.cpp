#include <ATen/TensorOperators.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "blocks/normed_quadratic.h"
#include "blocks/weight_terms.h"
#include "functors/scalar.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

constexpr int64_t kPanel = 32;      // columns between two products with H
constexpr int kPasses = 1000;       // of coordinate descent, at the most
constexpr int kFirstPasses = 4;     // before the first Newton step
constexpr int kPassesBetween = 2;   // two Newton steps
constexpr double kStalled = 1e-15;  // relative decrease over some passes that ends it
constexpr int kHalvings = 6;        // of a Newton step

}  // namespace

// A matrix X on its way, with the gradient of the smooth part there.
class ColumnNorms::Descent {
 public:
  Descent(const NormedQuadratic& problem, const at::Tensor& x, const at::Tensor& centre,
          const at::Tensor& linear)
      : problem_(problem),
        weight_(problem.scale * problem.regularizer.by_input),
        l1_(problem.scale * problem.regularizer.entries.l1),
        bounds_(column_bounds(problem.regularizer, problem.regularized, x.scalar_type())),
        low_(bounds_.on(x.device(), bounds_.low)),
        high_(bounds_.on(x.device(), bounds_.high)),
        centre_(centre.to(at::kDouble)),
        linear_(problem.shifted(centre, linear)) {
    const at::Tensor diagonal = problem.hessian.diagonal().contiguous().cpu();
    diagonal_.assign(diagonal.const_data_ptr<double>(), diagonal.const_data_ptr<double>() + diagonal.numel());
    go_to(x.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true));
  }

  const at::Tensor& x() const { return x_; }
  bool only_norms() const { return l1_ == 0 && !bounds_.any(); }

  void go_to(const at::Tensor& x) {
    x_ = x;
    gradient_ = at::mm(x_ - centre_, problem_.hessian).sub_(linear_);
  }

  // The objective up to a constant.
  double value() const {
    const at::Tensor entries = problem_.covered(x_);
    if (bounds_.any() && entries.lt(low_).logical_or_(entries.gt(high_)).any().item<bool>()) {
      return functors::kInfinity;
    }
    double value =
        inner_product(gradient_ - linear_, x_ - centre_) / 2 + weight_ * sum_of_column_norms(entries);
    return l1_ == 0 ? value : value + l1_ * entries.abs().sum().item<double>();
  }

  // The largest distance of zero from an entry of the subdifferential, or from that of a zero column.
  double distance() const {
    at::Tensor distance = gradient_.clone();
    const at::Tensor entries = problem_.covered(x_);
    at::Tensor of_covered = problem_.covered(distance);
    const at::Tensor length = norms(entries);
    of_covered.add_(at::where(length > 0, entries / length * weight_, 0));
    if (l1_ != 0) {
      const at::Tensor at_zero = of_covered - of_covered.clamp(-l1_, l1_);
      of_covered.copy_(at::where(entries == 0, at_zero, of_covered + entries.sign() * l1_));
    }
    of_covered.masked_fill_((entries <= low_).logical_and_(of_covered > 0), 0);
    of_covered.masked_fill_((entries >= high_).logical_and_(of_covered < 0), 0);
    const at::Tensor of_zero = (norms(of_covered) - weight_).clamp_min_(0);
    of_covered.copy_(at::where(length > 0, of_covered, of_zero));
    return distance.abs().max().item<double>();
  }

  // One pass of coordinate descent over all columns.
  void pass() {
    const int64_t columns = x_.size(1);
    for (int64_t begin = 0; begin < columns; begin += kPanel) {
      const int64_t width = std::min(kPanel, columns - begin);
      const at::Tensor panel = problem_.hessian.narrow(0, begin, width);
      const at::Tensor own = panel.narrow(1, begin, width);
      const at::Tensor moves = at::zeros_like(x_.narrow(1, begin, width));
      for (int64_t j = 0; j < width; ++j) {
        const auto column = static_cast<size_t>(begin + j);
        const double curvature = diagonal_[column];
        at::Tensor entries = x_.select(1, begin + j);
        at::Tensor slope = gradient_.select(1, begin + j);
        if (j > 0) {
          slope = slope + at::mv(moves.narrow(1, 0, j), own.select(1, j).narrow(0, 0, j));
        }
        at::Tensor next = entries - slope / curvature;
        if (begin + j < problem_.regularized) {
          if (l1_ != 0) {
            next.sub_(next.clamp(-l1_ / curvature, l1_ / curvature));
          }
          next.clamp_(bounds_.low[column], bounds_.high[column]);
          const at::Tensor length = at::linalg_vector_norm(next);
          const double shrink = weight_ / curvature;
          next.mul_(at::where(length > shrink, 1 - shrink / length, 0));
        }
        moves.select(1, j).copy_(next - entries);
        entries.copy_(next);
      }
      gradient_.addmm_(moves, panel);
    }
  }

  // A Newton step on the columns that are not zero, if a part of it lowers the objective. With u_j =
  // x_j/|x_j| and Lambda_j = weight/|x_j| (u = 0 and Lambda = 0 for the bias) it is D (H + Lambda) - sum_j
  // Lambda_j t_j u_j e_j^T = -G, where t_j = <u_j, D e_j>: with S = (H + Lambda)^{-1}, t solves t_i - sum_j
  // S_ji <u_i, u_j> Lambda_j t_j = <u_i, -G S e_i>.
  void newton(double before) {
    const at::Tensor length = norms(problem_.covered(x_)).squeeze(0);
    at::Tensor used = at::ones_like(x_[0], at::kBool);
    used.narrow(0, 0, problem_.regularized).copy_(length > 0);
    const at::Tensor index = used.nonzero().squeeze(1);
    if (index.numel() == 0) {
      return;
    }
    at::Tensor unit = at::zeros_like(x_), lambda = at::zeros_like(x_[0]);
    problem_.covered(unit).copy_(at::where(length > 0, problem_.covered(x_) / length, 0));
    lambda.narrow(0, 0, problem_.regularized).copy_(at::where(length > 0, weight_ / length, 0));
    unit = unit.index_select(1, index);
    lambda = lambda.index_select(0, index);
    at::Tensor system = problem_.hessian.index_select(0, index).index_select(1, index);
    system.diagonal().add_(lambda);
    const auto [factor, info] = at::linalg_cholesky_ex(system);
    if (info.item<int>() != 0) {
      return;
    }
    const at::Tensor inverse = at::cholesky_inverse(factor);
    at::Tensor target = gradient_.index_select(1, index).neg_();
    target.sub_(unit * weight_);
    const at::Tensor plain = at::mm(target, inverse);
    at::Tensor small = at::mm(unit.t(), unit).mul_(inverse).mul_(lambda).neg_();
    small.diagonal().add_(1);
    const at::Tensor right = (unit * plain).sum(0);
    const auto [along, failed] = at::linalg_solve_ex(small, right);
    if (failed.item<int>() != 0) {
      return;
    }
    const at::Tensor step = plain + at::mm(unit * (lambda * along), inverse);
    const at::Tensor start = x_;
    double part = 1;
    for (int halving = 0; halving <= kHalvings; ++halving, part /= 2) {
      go_to(start.index_add(1, index, step * part));
      if (value() < before) {
        return;
      }
    }
    go_to(start);
  }

 private:
  static at::Tensor norms(const at::Tensor& t) { return at::linalg_vector_norm(t, 2, 0, /*keepdim=*/true); }

  const NormedQuadratic& problem_;
  const double weight_, l1_;
  const ColumnBounds bounds_;
  const at::Tensor low_, high_;
  const at::Tensor centre_, linear_;
  std::vector<double> diagonal_;
  at::Tensor x_, gradient_;
};

void ColumnNorms::minimise_(const at::Tensor& x, const at::Tensor& centre, const at::Tensor& linear) const {
  const double tolerance = x.scalar_type() == at::kDouble ? 1e-10 : 1e-7;
  const double weight = problem_.scale * problem_.regularizer.by_input;
  const double enough = tolerance * std::max(linear.abs().max().item<double>(), weight);
  Descent descent(problem_, x, centre, linear);
  const double start = descent.value();
  double before = start;
  for (int pass = 1; pass <= kPasses; ++pass) {
    descent.pass();
    if (descent.distance() <= enough) {
      break;
    }
    if (pass >= kFirstPasses && (pass - kFirstPasses) % kPassesBetween == 0) {
      const double here = descent.value();
      if (descent.only_norms()) {
        descent.newton(here);
      }
      const double value = descent.value();
      if (pass > kFirstPasses && !(before - value > std::fabs(value) * kStalled)) {
        break;
      }
      before = value;
    }
  }
  const at::Tensor rounded = descent.x().to(x.scalar_type());
  Descent end(problem_, rounded, centre, linear);
  if (end.value() < start) {
    at::Tensor(x).copy_(rounded);
  }
}

}  // namespace torchbcd
