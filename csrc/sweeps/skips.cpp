#include "sweeps/skips.h"

#include <algorithm>
#include <iterator>

namespace torchbcd {

std::vector<Skip> skips_into(const std::vector<Skip>& skips, size_t l) {
  std::vector<Skip> into;
  std::copy_if(skips.begin(), skips.end(), std::back_inserter(into),
               [l](const Skip& skip) { return skip.to == static_cast<int64_t>(l); });
  return into;
}

std::vector<Skip> skips_from(const std::vector<Skip>& skips, size_t l, bool activated) {
  std::vector<Skip> from;
  std::copy_if(skips.begin(), skips.end(), std::back_inserter(from), [&](const Skip& skip) {
    return skip.from == static_cast<int64_t>(l) && skip.activated == activated;
  });
  return from;
}

std::optional<size_t> layers_to_end_of_branch(const std::vector<Skip>& skips, size_t l) {
  const auto layer = static_cast<int64_t>(l);
  std::optional<size_t> left;
  for (const Skip& skip : skips) {
    if (skip.from < layer && layer <= skip.to) {
      left = std::min(left.value_or(skip.to), static_cast<size_t>(skip.to - layer));
    }
  }
  return left;
}

const at::Tensor& skipped(const Skip& skip, const at::Tensor& x, const std::vector<at::Tensor>& u,
                          const std::vector<at::Tensor>& v) {
  return skip.from < 0 ? x : (skip.activated ? v : u)[skip.from];
}

void add_skipped_(const std::vector<Skip>& skips, size_t l, const at::Tensor& x,
                  const std::vector<at::Tensor>& u, const std::vector<at::Tensor>& v, const at::Tensor& out,
                  double times) {
  for (const Skip& skip : skips_into(skips, l)) {
    out.add_(skipped(skip, x, u, v), times);
  }
}

}  // namespace torchbcd
