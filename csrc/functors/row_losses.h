// What the passes over a loss that couples a row's entries apply to each row. The matrices are out, target
// and centre (the point that a value or a gradient is taken at); the weights of the rows come last.
#pragma once

#include "functors/pass.h"

namespace torchbcd::functors {

// The problem of a row; of its loss alone where no more is given.
template <typename T, typename Loss>
TORCHBCD_HOST_DEVICE typename Loss::template Row<T> row_of(const Loss&, T* const* row,
                                                           const Rows::Layout& layout, double weight = 1,
                                                           double curvature = 0,
                                                           const Regularizer& regularizer = {}) {
  return {row[1],         row[2], row[0],    layout.target_stride, layout.centre_stride, layout.out_stride,
          layout.classes, weight, curvature, regularizer};
}

// out = argmin over x of  weight row_weight l(x; y) + curvature/2 |x - c|^2 + s(x).
template <typename T, typename Loss>
struct RowLossUpdate {
  using Pass = RowPass<RowLoss, 4, Regularizer, double, double>;

  Loss loss;
  Regularizer regularizer;
  double weight, curvature;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    row_of(loss, row, layout, weight * static_cast<double>(*row[3]), curvature, regularizer).solve();
  }
};

// The first entry of the row of out = l(v; y).
template <typename T, typename Loss>
struct RowLossValue {
  using Pass = RowPass<RowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    *row[0] = static_cast<T>(row_of(loss, row, layout).value());
  }
};

// out = the gradient in v.
template <typename T, typename Loss>
struct RowLossGradient {
  using Pass = RowPass<RowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    row_of(loss, row, layout).gradient();
  }
};

// The first entry of the row of out = a Lipschitz constant of that gradient.
template <typename T, typename Loss>
struct RowLossGradientLipschitz {
  using Pass = RowPass<RowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    *row[0] = static_cast<T>(row_of(loss, row, layout).gradient_lipschitz());
  }
};

}  // namespace torchbcd::functors
