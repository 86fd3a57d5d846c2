#include "sweeps/relaxed_skips.h"

#include <ATen/ops/addmm.h>

#include <algorithm>

#include "sweeps/skips.h"

namespace torchbcd {

void SkipResiduals::before_weights(size_t l, const at::Tensor& residual) {
  if (!skips_into(skips_, l).empty()) {
    wanted_[l] = residual.clone();
  }
}

std::vector<SkipReader> SkipResiduals::readers(size_t i, const std::vector<double>& penalties,
                                               bool before_branch) const {
  std::vector<SkipReader> readers;
  for (const Skip& skip : skips_) {
    if (skip.from != static_cast<int64_t>(i)) {
      continue;
    }
    const auto to = static_cast<size_t>(skip.to);
    auto reader = std::find_if(readers.begin(), readers.end(),
                               [to](const SkipReader& other) { return other.layer == to; });
    if (reader == readers.end()) {
      const at::Tensor& wanted = before_branch ? wanted_[to] : residuals_[to];
      const double ratio = penalties[to] / penalties[i + 1];
      reader = readers.insert(reader, {to, residuals_[to], wanted, ratio, false, false});
    }
    (skip.activated ? reader->reads_v : reader->reads_u) = true;
  }
  return readers;
}

void SkipResiduals::moved(size_t l, const StateProblem& problem, const StateMoved& moved) {
  if (!skips_into(skips_, l).empty()) {
    residuals_[l] = at::addmm(problem.residual, moved.change, problem.weight.t(), 1, -1);
  }
  this->moved(problem.skips, moved.skip_residuals);
}

void SkipResiduals::moved(const std::vector<SkipReader>& skips, const std::vector<at::Tensor>& residuals) {
  for (size_t k = 0; k < skips.size(); ++k) {
    residuals_[skips[k].layer] = residuals[k];
  }
}

}  // namespace torchbcd
