#include "blocks/piecewise_lines.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
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

at::Tensor PiecewiseLines::prox(const at::Tensor& t, const at::Tensor& b, double ratio) const {
  at::Tensor best, least;
  for (size_t k = 0; k < slopes.size(); ++k) {
    const double low = k == 0 ? -std::numeric_limits<double>::infinity() : kinks[k - 1];
    const double high = k == kinks.size() ? std::numeric_limits<double>::infinity() : kinks[k];
    const at::Tensor u =
        ((t - levels[k]) * slopes[k] + b * ratio).div_(slopes[k] * slopes[k] + ratio).clamp_(low, high);
    const at::Tensor value = (t - levels[k] - u * slopes[k]).square_() + (u - b).square_() * ratio;
    best = k == 0 ? u : at::where(value < least, u, best);
    least = k == 0 ? value : at::minimum(value, least);
  }
  return best;
}

}  // namespace torchbcd
