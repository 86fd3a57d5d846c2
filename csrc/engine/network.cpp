#include "engine/network.h"

#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "ops/passes.h"

namespace torchbcd {
namespace {

constexpr int64_t kChunkRows = 2048;

double sum_of_squares(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kDouble).reshape(-1);
  return at::dot(flat, flat).item<double>();
}

}  // namespace

SplitVariables SplitVariables::narrow(int64_t begin, int64_t size) const {
  const auto cut = [&](const std::vector<at::Tensor>& whole) {
    std::vector<at::Tensor> part;
    part.reserve(whole.size());
    for (const at::Tensor& t : whole) {
      part.push_back(t.narrow(0, begin, size));
    }
    return part;
  };
  return {cut(u), cut(v), cut(residual)};
}

SplitVariables SplitVariables::allocate(int64_t rows, const std::vector<AffineMap>& maps) {
  SplitVariables result;
  for (std::vector<at::Tensor>* part : {&result.u, &result.v, &result.residual}) {
    for (const AffineMap& map : maps) {
      part->push_back(at::empty({rows, map.weight.size(0)}, map.weight.options()));
    }
  }
  return result;
}

std::string block_name(const char* trainer, size_t depth, const char* block, size_t layer) {
  return std::string(trainer) + ": layer " + std::to_string(layer + 1) + " of " + std::to_string(depth) +
         ", " + block + " block";
}

void for_each_chunk(int64_t rows, const std::function<void(int64_t begin, int64_t size)>& f) {
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    f(begin, std::min(kChunkRows, rows - begin));
  }
}

void products_out(const at::Tensor& x, const std::vector<at::Tensor>& states,
                  const std::vector<AffineMap>& maps, const std::vector<at::Tensor>& out) {
  for (size_t l = 0; l < maps.size(); ++l) {
    affine_out(l == 0 ? x : states[l - 1], maps[l], out[l]);
  }
}

void forward_out(const at::Tensor& x, const std::vector<AffineMap>& maps,
                 const std::vector<functors::Activation>& activations,
                 const std::vector<at::Tensor>& products, const std::vector<at::Tensor>& states) {
  for (size_t l = 0; l < maps.size(); ++l) {
    affine_out(l == 0 ? x : states[l - 1], maps[l], products[l]);
    if (l < states.size()) {
      passes::activation(products[l], activations[l], states[l]);
    }
  }
}

void forward_pass(const Network& network, const std::vector<AffineMap>& maps, RowSet& rows) {
  for (size_t l = 0; l < network.depth(); ++l) {
    const at::Tensor& u = rows.current.u[l];
    affine_out(rows.input(l), maps[l], u);
    const at::Tensor& v = rows.current.v[l];
    passes::activation(u, network.layers[l].activation, v);
    const functors::Regularizer& regularizer = network.layers[l].options.state_regularizer;
    if (regularizer.bounded()) {
      passes::prox_regularizer(v, {.low = regularizer.low, .high = regularizer.high}, 1, v);
    }
    rows.current.residual[l].zero_();
  }
  rows.residuals = Residuals::kCurrent;
}

void refresh_residuals(const Network& network, const std::vector<AffineMap>& maps, RowSet& rows) {
  const size_t end = rows.residuals == Residuals::kStale         ? maps.size()
                     : rows.residuals == Residuals::kAllButFirst ? 1
                                                                 : 0;
  // By the same chunks as a sweep, so that looking at the objective changes no bit of what follows.
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const SplitVariables chunk = rows.current.narrow(begin, size);
    for (size_t l = 0; l < end; ++l) {
      const at::Tensor input = rows.input(l).narrow(0, begin, size);
      if (network.splitting == Splitting::kTwo) {
        affine_out(input, maps[l], chunk.u[l]);
      } else {
        affine_residual_out(chunk.u[l], input, maps[l], chunk.residual[l]);
      }
    }
  });
  rows.residuals = Residuals::kCurrent;
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

at::Tensor from_doubles(const std::vector<double>& values) {
  return at::tensor(at::ArrayRef<double>(values), at::kDouble);
}

std::vector<double> to_doubles(const at::Tensor& t) {
  const at::Tensor values = t.to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

void sum_over_ranks(const SumOverRanks& sum, const at::Device& device, const std::vector<double*>& numbers) {
  std::vector<double> values;
  for (const double* number : numbers) {
    values.push_back(*number);
  }
  const at::Tensor sums = from_doubles(values).to(device);
  sum(sums);
  values = to_doubles(sums);
  for (size_t i = 0; i < numbers.size(); ++i) {
    *numbers[i] = values[i];
  }
}

ObjectiveTerms objective_terms(const Network& network, const std::vector<AffineMap>& maps, const RowSet& rows,
                               const SplitVariables& variables) {
  const size_t depth = network.depth();
  ObjectiveTerms terms;
  for (std::vector<double>* part : {&terms.activation_penalty, &terms.affine_penalty, &terms.state_penalty}) {
    part->assign(depth, 0);
  }
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const SplitVariables chunk = variables.narrow(begin, size);
    for (size_t l = 0; l < depth; ++l) {
      const LayerOptions& options = network.layers[l].options;
      at::Tensor gap = at::empty_like(chunk.u[l]);
      passes::activation(chunk.u[l], network.layers[l].activation, gap);
      gap.sub_(chunk.v[l]);
      terms.activation_penalty[l] += options.gamma / 2 * sum_of_squares(gap);
      if (network.splitting == Splitting::kThree) {
        terms.affine_penalty[l] += options.rho / 2 * sum_of_squares(chunk.residual[l]);
      }
      terms.state_penalty[l] += regularizer_value(options.state_regularizer, chunk.v[l]);
    }
    at::Tensor losses = passes::row_losses(rows.y.narrow(0, begin, size), chunk.v.back(), network.loss);
    losses.mul_(rows.row_weights(begin, size));
    terms.loss += row_loss_weight(network, rows) * losses.sum(at::kDouble).item<double>();
  });
  if (network.sum_over_ranks) {
    std::vector<double*> sums = {&terms.loss};
    for (std::vector<double>* part :
         {&terms.activation_penalty, &terms.affine_penalty, &terms.state_penalty}) {
      for (double& term : *part) {
        sums.push_back(&term);
      }
    }
    sum_over_ranks(network.sum_over_ranks, rows.x.device(), sums);
  }
  for (size_t l = 0; l < depth; ++l) {
    terms.weight_penalty.push_back(
        regularizer_value(network.layers[l].options.weight_regularizer, maps[l].weight));
  }
  return terms;
}

}  // namespace torchbcd
