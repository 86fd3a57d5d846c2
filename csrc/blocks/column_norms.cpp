#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/minimum.h>
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

constexpr int64_t kColumnPanel = 32;      // columns between two products with H
constexpr int kColumnPasses = 1000;       // of coordinate descent, at the most
constexpr int kColumnFirstPasses = 4;     // before the first Newton step
constexpr int kColumnPassesBetween = 2;   // two Newton steps
constexpr double kColumnStalled = 1e-15;  // relative decrease over some passes that ends it
constexpr double kLeastPart = 0.01;       // of a Newton step
constexpr double kMet = 1e-14;            // of an entry, below which it is zero
constexpr int kColumnNewtonSteps = 4;     // in a row, where there are kinks
constexpr int64_t kInverses = 1 << 23;    // entries of all inverses that a Newton step takes

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
    for (int64_t begin = 0; begin < columns; begin += kColumnPanel) {
      const int64_t width = std::min(kColumnPanel, columns - begin);
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

  // A Newton step on the entries of columns that are not zero, and on no kink, if a part of it lowers the
  // objective; what would cross a kink stops there. With u_j = x_j/|x_j| and Lambda_j = weight/|x_j| (u = 0
  // and Lambda = 0 for the bias) it is D (H + Lambda) - sum_j Lambda_j t_j u_j e_j^T = -G, where t_j = <u_j,
  // D e_j>. With S_i the inverse of H + Lambda on row i's entries, and t the solution of t_j - sum_ik u_ij
  // S_i[j, k] u_ik Lambda_k t_k = -sum_i u_ij (S_i g_i)_j, row i of D is S_i (Lambda t u_i - g_i).
  void newton(double before) {
    const at::Tensor entries = problem_.covered(x_);
    const at::Tensor length = norms(entries).squeeze(0);
    at::Tensor used = at::ones_like(x_.select(0, 0), at::kBool);
    used.narrow(0, 0, problem_.regularized).copy_(length > 0);
    const at::Tensor index = used.nonzero().squeeze(1);
    const int64_t rows = only_norms() ? 1 : x_.size(0);  // inverses, of one row for all
    if (index.numel() == 0 || rows * index.numel() * index.numel() > kInverses) {
      return;
    }
    at::Tensor unit = at::zeros_like(x_), lambda = at::zeros_like(x_.select(0, 0));
    problem_.covered(unit).copy_(at::where(length > 0, entries / length, 0));
    lambda.narrow(0, 0, problem_.regularized).copy_(at::where(length > 0, weight_ / length, 0));
    at::Tensor slope = gradient_ + unit * weight_, free = at::ones_like(x_, at::kBool);
    if (!only_norms()) {
      problem_.covered(slope).add_(entries.sign(), l1_);
      problem_.covered(free).copy_(entries.gt(low_).logical_and_(entries.lt(high_)));
      if (l1_ != 0) {
        problem_.covered(free).logical_and_(entries.ne(0));
      }
    }
    unit = unit.index_select(1, index);
    lambda = lambda.index_select(0, index);
    free = free.index_select(1, index);
    const at::Tensor target = at::where(free, slope.index_select(1, index), 0).neg_();
    at::Tensor system = problem_.hessian.index_select(0, index).index_select(1, index).clone();
    system.diagonal().add_(lambda);
    const at::Tensor kept = free.narrow(0, 0, rows).to(at::kDouble);
    const at::Tensor both = kept.unsqueeze(2) * kept.unsqueeze(1);
    at::Tensor systems = system.unsqueeze(0) * both;
    systems.diagonal(0, 1, 2).add_(1 - kept);
    const auto [factor, info] = at::linalg_cholesky_ex(systems);
    if (info.ne(0).any().item<bool>()) {
      return;
    }
    const at::Tensor inverse = at::cholesky_inverse(factor).mul_(both);
    const auto solved = [&](const at::Tensor& t) {
      return rows == 1 ? at::mm(t, inverse.select(0, 0)) : at::bmm(t.unsqueeze(1), inverse).squeeze(1);
    };
    const at::Tensor plain = solved(target);
    at::Tensor small = rows == 1 ? at::mm(unit.t(), unit) * inverse.select(0, 0)
                                 : (unit.unsqueeze(2) * unit.unsqueeze(1) * inverse).sum(0);
    small.mul_(lambda).neg_();
    small.diagonal().add_(1);
    const auto [along, failed] = at::linalg_solve_ex(small, (unit * plain).sum(0));
    if (failed.item<int>() != 0) {
      return;
    }
    const at::Tensor move = at::zeros_like(x_).index_copy_(1, index, plain + solved(unit * (lambda * along)));
    go_to_lowest(move, before);
  }

 private:
  static at::Tensor norms(const at::Tensor& t) { return at::linalg_vector_norm(t, 2, 0, /*keepdim=*/true); }

  // The best of some parts of a move that is lower than `before`; each row's up to its first kink among them.
  void go_to_lowest(const at::Tensor& move, double before) {
    const at::Tensor start = x_, slope = gradient_;
    std::vector<at::Tensor> points;
    if (!only_norms()) {
      points.push_back(stopped_at_kinks(start, start + move * reach(move)));
    }
    for (double part = 1; part > kLeastPart; part /= 2) {
      points.push_back(stopped_at_kinks(start, start + move * part));
    }
    at::Tensor best = start, best_slope = slope;
    for (const at::Tensor& point : points) {
      go_to(point);
      const double there = value();
      if (there < before) {
        before = there;
        best = x_;
        best_slope = gradient_;
        if (only_norms()) {
          break;
        }
      }
    }
    x_ = best;
    gradient_ = best_slope;
  }

  // The part of a move, (m, 1), after which a row's first entry meets a kink; 1 where none does.
  at::Tensor reach(const at::Tensor& move) const {
    const at::Tensor entries = problem_.covered(x_), moves = problem_.covered(move);
    const at::Tensor divisor = at::where(moves == 0, 1, moves);
    at::Tensor part = at::ones_like(entries);
    const auto meet = [&](const at::Tensor& kink, const at::Tensor& towards) {
      part = at::minimum(part, at::where(towards, (kink - entries) / divisor, 1));
    };
    meet(low_, moves < 0);
    meet(high_, moves > 0);
    if (l1_ != 0) {
      meet(at::zeros_like(low_), entries * moves < 0);
    }
    return part.amin(1, /*keepdim=*/true).clamp_min_(0);
  }

  // Entries that have crossed a kink, or all but met one, are on it: kinks are at zero alone here.
  at::Tensor stopped_at_kinks(const at::Tensor& before, const at::Tensor& next) const {
    if (!only_norms()) {
      const at::Tensor from = problem_.covered(before);
      at::Tensor to = problem_.covered(next);
      const at::Tensor met = (to * from < 0).logical_or_(to.abs() < from.abs() * kMet);
      const at::Tensor kink =
          at::zeros_like(low_).add_(l1_).ne(0).logical_or_(low_.eq(0)).logical_or_(high_.eq(0));
      to.masked_fill_(met.logical_and_(kink), 0).clamp_(low_, high_);
    }
    return next;
  }

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
  for (int pass = 1; pass <= kColumnPasses; ++pass) {
    descent.pass();
    if (descent.distance() <= enough) {
      break;
    }
    if (pass >= kColumnFirstPasses && (pass - kColumnFirstPasses) % kColumnPassesBetween == 0) {
      double value = descent.value();
      for (int step = 0; step < (descent.only_norms() ? 1 : kColumnNewtonSteps); ++step) {
        descent.newton(value);
        value = descent.value();
      }
      if (pass > kColumnFirstPasses && !(before - value > std::fabs(value) * kColumnStalled)) {
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
