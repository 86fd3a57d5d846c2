#include "torchbcd/reports.h"

#include <ATen/ops/sum.h>

namespace torchbcd {

double ObjectiveTerms::total() const {
  double sum = loss;
  for (const std::vector<double>* terms :
       {&activation_penalty, &affine_penalty, &weight_penalty, &state_penalty}) {
    for (const double term : *terms) {
      sum += term;
    }
  }
  return sum;
}

double LazyValue::value() const {
  const auto sum = [](const at::Tensor& t) { return t.defined() ? at::sum(t).item<double>() : 0; };
  return constant + scale * (sum(plus) - sum(minus));
}

}  // namespace torchbcd
