#include "blocks/proximal_quadratic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <utility>

#include "blocks/proximal_descent.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

// 1/2 <(X - C) S, X - C> - <B, X - C>
class WithOneHessian final : public SmoothPart {
 public:
  WithOneHessian(at::Tensor system, double largest, at::Tensor centre, at::Tensor linear)
      : system_(std::move(system)),
        largest_(largest),
        centre_(std::move(centre)),
        linear_(std::move(linear)) {}

  double curvature() const override { return largest_; }
  at::Tensor gradient(const at::Tensor& x) const override {
    return at::mm(x - centre_, system_).sub_(linear_);
  }
  at::Tensor gradient_beyond(const at::Tensor&, const Point& next, const Point& last,
                             double part) const override {
    return next.gradient + part * (next.gradient - last.gradient);
  }
  double rise(const Point& next, const Point& last) const override {
    return inner_product(last.gradient + next.gradient, next.x - last.x) / 2;
  }

 private:
  at::Tensor system_;
  double largest_;
  at::Tensor centre_, linear_;
};

}  // namespace

ProximalQuadratic::ProximalQuadratic(NormedQuadratic problem, std::string where)
    : problem_(std::move(problem)),
      where_(std::move(where)),
      system_(problem_.of_weight()),
      largest_(at::linalg_eigvalsh(system_).max().item<double>()) {}

void ProximalQuadratic::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                  const at::Tensor& linear) const {
  const at::Tensor c = centre.to(at::kDouble), b = problem_.shifted(centre, linear);
  const at::Tensor pull = problem_.without_bias(b);
  const double enough =
      (x.scalar_type() == at::kDouble ? 1e-10 : 1e-7) * std::max(pull.abs().max().item<double>(), 1e-290);
  const WithOneHessian smooth(system_, largest_, problem_.covered(c), pull);
  const ProximalFound weight = proximal_descent(smooth, *problem_.regularizer.proximal, problem_.scale,
                                                problem_.covered(x), enough, where_);
  const at::Tensor found = at::empty_like(x);
  problem_.covered(found).copy_(weight.x);
  if (problem_.has_bias()) {
    const at::Tensor all = at::mm(c, problem_.hessian).add_(b);
    found.select(1, problem_.regularized).copy_(problem_.best_bias(all, weight.x.to(at::kDouble)));
  }
  // With the bias where it was and as it is held.
  const auto quadratic = [&](const at::Tensor& at) {
    const at::Tensor moved = at.to(at::kDouble) - c;
    return inner_product(at::mm(moved, problem_.hessian).mul_(0.5).sub_(b), moved);
  };
  const double decrease =
      quadratic(x) - quadratic(found) + problem_.scale * (weight.at_start - weight.at_end);
  if (decrease > 0) {
    x.copy_(found);
  }
}

}  // namespace torchbcd
