#include "engine/network.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

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

std::string block_name(const Network& network, const char* block, size_t layer) {
  return "torchbcd.BCD: layer " + std::to_string(layer + 1) + " of " + std::to_string(network.depth()) +
         ", " + block + " block";
}

void for_each_chunk(int64_t rows, const std::function<void(int64_t begin, int64_t size)>& f) {
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    f(begin, std::min(kChunkRows, rows - begin));
  }
}

void forward_pass(const Network& network, const std::vector<AffineMap>& maps, RowSet& rows) {
  for (size_t l = 0; l < network.depth(); ++l) {
    at::Tensor u = rows.current.u[l];
    if (maps[l].bias.defined()) {
      at::addmm_out(u, maps[l].bias, rows.input(l), maps[l].weight.t());
    } else {
      at::mm_out(u, rows.input(l), maps[l].weight.t());
    }
    passes::activation(u, network.layers[l].activation, rows.current.v[l]);
    rows.current.residual[l].zero_();
  }
  rows.residuals = Residuals::kCurrent;
}

void refresh_residuals(const std::vector<AffineMap>& maps, RowSet& rows) {
  const size_t end = rows.residuals == Residuals::kStale         ? maps.size()
                     : rows.residuals == Residuals::kAllButFirst ? 1
                                                                 : 0;
  // By the same chunks as a sweep, so that looking at the objective changes no bit of what follows.
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    for (size_t l = 0; l < end; ++l) {
      affine_residual_out(rows.current.u[l].narrow(0, begin, size), rows.input(l).narrow(0, begin, size),
                          maps[l], rows.current.residual[l].narrow(0, begin, size));
    }
  });
  rows.residuals = Residuals::kCurrent;
}

double ObjectiveTerms::total() const {
  double sum = loss;
  for (const std::vector<double>* terms : {&activation_penalty, &affine_penalty}) {
    for (const double term : *terms) {
      sum += term;
    }
  }
  return sum;
}

ObjectiveTerms objective_terms(const Network& network, const RowSet& rows) {
  const size_t depth = network.depth();
  ObjectiveTerms terms;
  terms.activation_penalty.assign(depth, 0);
  terms.affine_penalty.assign(depth, 0);
  for_each_chunk(rows.rows(), [&](int64_t begin, int64_t size) {
    const SplitVariables chunk = rows.current.narrow(begin, size);
    for (size_t l = 0; l < depth; ++l) {
      const LayerOptions& options = network.layers[l].options;
      at::Tensor gap = at::empty_like(chunk.u[l]);
      passes::activation(chunk.u[l], network.layers[l].activation, gap);
      gap.sub_(chunk.v[l]);
      terms.activation_penalty[l] += options.gamma / 2 * sum_of_squares(gap);
      terms.affine_penalty[l] += options.rho / 2 * sum_of_squares(chunk.residual[l]);
    }
    at::Tensor losses = at::empty_like(chunk.v.back());
    passes::loss(rows.y.narrow(0, begin, size), chunk.v.back(), network.loss, losses);
    terms.loss += row_loss_weight(network, rows) * losses.sum(at::kDouble).item<double>();
  });
  return terms;
}

}  // namespace torchbcd
