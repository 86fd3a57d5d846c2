#include "sweeps/layers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "kernels/passes.h"

namespace torchbcd {

std::string block_name(const char* optimizer, size_t depth, const char* block, size_t layer) {
  return std::string(optimizer) + ": layer " + std::to_string(layer + 1) + " of " + std::to_string(depth) +
         ", " + block + " block";
}

void for_each_chunk(int64_t rows, const std::function<void(int64_t begin, int64_t size)>& f) {
  constexpr int64_t kChunkRows = 2048;
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    f(begin, std::min(kChunkRows, rows - begin));
  }
}

std::vector<at::Tensor> allocate_states(int64_t n, const std::vector<AffineMap>& maps, bool with_last,
                                        const RowStorage& storage, const std::string& name) {
  std::vector<at::Tensor> states;
  for (size_t l = 0; l + (with_last ? 0 : 1) < maps.size(); ++l) {
    states.push_back(storage.allocate(name + std::to_string(l + 1), {n, maps[l].weight.size(0)},
                                      maps[l].weight.options()));
  }
  return states;
}

std::vector<at::Tensor> allocate_scratch(int64_t n, const std::vector<AffineMap>& maps, int count) {
  int64_t widest = 0;
  for (const AffineMap& map : maps) {
    widest = std::max(widest, map.weight.size(0));
  }
  std::vector<at::Tensor> scratch;
  for (int which = 0; which < count; ++which) {
    scratch.push_back(at::empty({n * widest}, maps.front().weight.options()));
  }
  return scratch;
}

at::Tensor scratch_view(const at::Tensor& scratch, int64_t n, int64_t columns) {
  return scratch.narrow(0, 0, n * columns).view({n, columns});
}

void products_out(const at::Tensor& x, const std::vector<at::Tensor>& states,
                  const std::vector<AffineMap>& maps, const std::vector<at::Tensor>& out) {
  for (size_t l = 0; l < maps.size(); ++l) {
    affine_out(l == 0 ? x : states[l - 1], maps[l], out[l]);
  }
}

void forward_out(const at::Tensor& x, const std::vector<AffineMap>& maps,
                 const std::vector<StateMap>& state_maps, const std::vector<Skip>& skips,
                 const std::vector<at::Tensor>& products, const std::vector<at::Tensor>& states) {
  for (size_t l = 0; l < maps.size(); ++l) {
    affine_out(l == 0 ? x : states[l - 1], maps[l], products[l]);
    add_skipped_(skips, l, x, products, states, products[l]);
    if (l < states.size()) {
      state_maps[l].out(products[l], states[l]);
    }
  }
}

std::vector<functors::AnyActivation> activations_at(const std::vector<functors::AnyActivation>& activations,
                                                    const std::vector<AffineMap>& maps) {
  std::vector<functors::AnyActivation> at;
  for (size_t l = 0; l < activations.size(); ++l) {
    at.push_back(with_slope(activations[l], maps[l].slope));
  }
  return at;
}

std::vector<StateMap> state_maps_of(const std::vector<functors::AnyActivation>& activations) {
  std::vector<StateMap> maps;
  for (const functors::AnyActivation& activation : activations) {
    maps.push_back({activation});
  }
  return maps;
}

double weighted_loss(const at::Tensor& y, const at::Tensor& v, const OutputLoss& loss,
                     const at::Tensor& row_weight) {
  at::Tensor losses = passes::row_losses(y.to(at::kDouble), v.to(at::kDouble), loss);
  if (row_weight.defined()) {
    losses.mul_(row_weight);
  }
  return losses.sum().item<double>();
}

void add_up_over_rows(const Totals& totals, ObjectiveTerms& terms) {
  std::vector<double*> sums = {&terms.loss};
  for (std::vector<double>* part : {&terms.activation_penalty, &terms.affine_penalty, &terms.state_penalty}) {
    for (double& term : *part) {
      sums.push_back(&term);
    }
  }
  totals.add_up(sums);
}

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
