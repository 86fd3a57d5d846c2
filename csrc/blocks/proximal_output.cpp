#include "blocks/proximal_output.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <utility>

#include "blocks/proximal_descent.h"
#include "kernels/passes.h"
#include "linalg/reductions.h"

namespace torchbcd {
namespace {

// sum_j w_j l(v_j; y_j) + curvature/2 |V - C|^2
class LossNearCentre final : public SmoothPart {
 public:
  LossNearCentre(at::Tensor y, at::Tensor row_weight, const OutputLoss& loss, at::Tensor centre, double near)
      : y_(std::move(y)),
        row_weight_(std::move(row_weight)),
        loss_(loss),
        centre_(std::move(centre)),
        near_(near) {
    for (const OutputLoss::Part& part : loss_.parts) {
      const at::Tensor of_rows = passes::gradient_lipschitz(part.of(y_), part.loss) * row_weight_;
      const double largest = of_rows.numel() == 0 ? 0 : of_rows.max().item<double>();
      of_loss_ = std::max(of_loss_, part.weight * largest);
    }
  }

  double curvature() const override { return of_loss_ + near_; }
  at::Tensor gradient(const at::Tensor& x) const override {
    at::Tensor sum = (x - centre_).mul_(near_);
    for (const OutputLoss::Part& part : loss_.parts) {
      const at::Tensor own = at::empty_like(part.of(x));
      passes::loss_gradient(part.of(y_), part.of(x), part.loss, own);
      part.of(sum).addcmul_(own, row_weight_, part.weight);
    }
    return sum;
  }
  double rise(const Point& next, const Point& last) const override {
    const at::Tensor losses = passes::row_losses(y_, next.x, loss_) - passes::row_losses(y_, last.x, loss_);
    return (losses * row_weight_).sum().item<double>() +
           near_ * inner_product((next.x + last.x) / 2 - centre_, next.x - last.x);
  }

 private:
  at::Tensor y_, row_weight_;
  const OutputLoss& loss_;
  at::Tensor centre_;
  double near_;
  double of_loss_ = 0;
};

}  // namespace

void proximal_output_(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                      const OutputLoss& loss, const WeightRegularizer& s, double weight, double curvature,
                      const std::string& where, const at::Tensor& v) {
  // The squared norm beside s is part of the quadratic.
  const double near = curvature + s.entries.l2;
  const LossNearCentre smooth(y.to(at::kDouble), row_weight.to(at::kDouble) * weight, loss,
                              centre.to(at::kDouble) * (curvature / near), near);
  const double steepest = v.numel() == 0 ? 0 : smooth.gradient(v.to(at::kDouble)).abs().max().item<double>();
  const double enough = (v.scalar_type() == at::kDouble ? 1e-10 : 1e-7) * std::max(steepest, 1e-290);
  at::Tensor to = v;
  to.copy_(proximal_descent(smooth, *s.proximal, 1, v, enough, where).x);
}

}  // namespace torchbcd
