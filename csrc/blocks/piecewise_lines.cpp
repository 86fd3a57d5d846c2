#include "blocks/piecewise_lines.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <variant>

namespace torchbcd {

bool is_piecewise_linear(const functors::AnyActivation& activation) {
  return std::visit([](const auto& f) { return f.piecewise_linear && f.continuous; }, activation);
}

PiecewiseLines::PiecewiseLines(const functors::AnyActivation& activation, const at::TensorOptions& options) {
  std::visit(
      [&](const auto& f) {
        const auto points = f.kinks();
        kinks.assign(points.begin(), points.end());
        for (size_t k = 0; k <= kinks.size(); ++k) {
          const double inside = kinks.empty()       ? 0
                                : k == 0            ? kinks[0] - 1
                                : k == kinks.size() ? kinks.back() + 1
                                                    : 0.5 * (kinks[k - 1] + kinks[k]);
          slopes.push_back(f.derivative(inside));
          levels.push_back(f.value(inside) - slopes.back() * inside);
        }
      },
      activation);
  slope = at::zeros({static_cast<int64_t>(slopes.size())}, options);
  level = at::zeros_like(slope);
  for (size_t k = 0; k < slopes.size(); ++k) {
    slope[static_cast<int64_t>(k)].fill_(slopes[k]);
    level[static_cast<int64_t>(k)].fill_(levels[k]);
  }
}

at::Tensor PiecewiseLines::piece(const at::Tensor& u) const {
  at::Tensor piece = at::zeros(u.sizes(), u.options().dtype(at::kLong));
  for (const double kink : kinks) {
    piece.add_(u.gt(kink));
  }
  return piece;
}

size_t PiecewiseLines::steepest() const {
  return std::max_element(slopes.begin(), slopes.end(),
                          [](double a, double b) { return std::fabs(a) < std::fabs(b); }) -
         slopes.begin();
}

}  // namespace torchbcd
