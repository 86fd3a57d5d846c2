#include "blocks/weight_quadratic.h"

namespace torchbcd {

WeightQuadratic::WeightQuadratic(const at::Tensor& hessian, const WeightRegularizer& regularizer,
                                 double scale, int64_t regularized, const char* where)
    : without_norms_(hessian, regularizer, scale, regularized) {
  if (regularized == 0) {
    return;
  }
  const auto problem = [&] { return NormedQuadratic(hessian, regularizer, scale, regularized); };
  if (regularizer.proximal) {
    proximal_.emplace(problem(), where);
  } else if (regularizer.by_input != 0) {
    columns_.emplace(problem());
  } else if (regularizer.of_rows()) {
    rows_.emplace(problem(), without_norms_);
  } else if (regularizer.bounds_sums()) {
    sums_.emplace(problem());
  }
}

void WeightQuadratic::minimise_(const at::Tensor& x, const at::Tensor& centre,
                                const at::Tensor& linear) const {
  if (x.numel() > 0 && proximal_) {
    proximal_->minimise_(x, centre, linear);
  } else if (x.numel() > 0 && columns_) {
    columns_->minimise_(x, centre, linear);
  } else if (x.numel() > 0 && rows_) {
    rows_->minimise_(x, centre, linear);
  } else if (x.numel() > 0 && sums_) {
    sums_->minimise_(x, centre, linear);
  } else {
    without_norms_.minimise_(x, centre, linear);
  }
}

}  // namespace torchbcd
