#include "linalg/moments.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "linalg/spd.h"

namespace torchbcd {
namespace {

constexpr int64_t kEntries = 1 << 23;  // of a chunk in float64: 64 MB
constexpr int64_t kLeastRows = 256;    // of a chunk
// What rounding may leave below zero of a diagonal entry that was subtracted from, relative to its peak.
constexpr double kRounding = 1e-8;
// What it may leave of a sum of weights.
constexpr double kWeightRounding = 1e-13;

// Those of a chunk of rows, which fits in memory once more in float64.
Moments of_chunk(const at::Tensor& given_f, const at::Tensor& given_y, const at::Tensor& given_w,
                 int64_t outputs, bool centred) {
  const at::Tensor w = given_w.defined() ? given_w.to(at::kDouble) : at::Tensor();
  const int64_t rows = given_f.size(0);
  const double weight = w.defined() ? w.sum().item<double>() : static_cast<double>(rows);
  if (weight == 0) {
    Moments m = Moments::none(given_f.size(1), outputs, centred, given_f.device());
    m.rows = rows;
    return m;
  }
  const at::TensorOptions options = given_f.options().dtype(at::kDouble);
  Moments m{centred, rows, weight, at::zeros({given_f.size(1)}, options), at::zeros({outputs}, options),
            {},      {},   {}};
  const at::Tensor f = given_f.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  const bool classes = !given_y.is_floating_point();
  const at::Tensor y = classes ? given_y : given_y.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  if (centred) {
    m.mean_f = w.defined() ? at::mv(f.t(), w).div_(m.weight) : f.mean(0);
    f.sub_(m.mean_f);
    if (classes) {
      m.mean_y.index_add_(0, y, w.defined() ? w : at::ones_like(y, f.options())).div_(m.weight);
    } else {
      m.mean_y = w.defined() ? at::mv(y.t(), w).div_(m.weight) : y.mean(0);
      y.sub_(m.mean_y);
    }
  }
  if (classes) {
    m.cross = at::zeros({outputs, f.size(1)}, options);
  }
  // Class by class sum w (f - f0), which is the cross product: what y0 would take off sums to zero.
  if (w.defined()) {
    const at::Tensor root = w.sqrt().unsqueeze(1);
    f.mul_(root);
    if (classes) {
      m.cross.index_add_(0, y, at::mul(f, root));
    } else {
      y.mul_(root);
    }
  } else if (classes) {
    m.cross.index_add_(0, y, f);
  }
  if (!classes) {
    m.cross = at::mm(y.t(), f);
  }
  m.gram = gram_matrix({.a = f});
  m.peak = m.gram.diagonal().clone();
  return m;
}

}  // namespace

Moments Moments::none(int64_t features, int64_t outputs, bool centred, const at::Device& device) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kDouble).device(device);
  return {centred,
          0,
          0,
          at::zeros({features}, options),
          at::zeros({outputs}, options),
          at::zeros({features, features}, options),
          at::zeros({outputs, features}, options),
          at::zeros({features}, options)};
}

Moments Moments::of(const at::Tensor& f, const at::Tensor& y, const at::Tensor& w, int64_t outputs,
                    bool centred) {
  const int64_t size = std::max(kLeastRows, kEntries / std::max<int64_t>(1, f.size(1) + outputs));
  Moments sum = none(f.size(1), outputs, centred, f.device());
  for (int64_t begin = 0; begin < f.size(0); begin += size) {
    const int64_t count = std::min(size, f.size(0) - begin);
    sum.add(of_chunk(f.narrow(0, begin, count), y.narrow(0, begin, count),
                     w.defined() ? w.narrow(0, begin, count) : w, outputs, centred));
  }
  return sum;
}

void Moments::grow(int64_t count) {
  if (count <= outputs()) {
    return;
  }
  const at::Tensor means = at::zeros({count}, mean_y.options());
  const at::Tensor products = at::zeros({count, features()}, cross.options());
  means.narrow(0, 0, outputs()).copy_(mean_y);
  products.narrow(0, 0, outputs()).copy_(cross);
  mean_y = means;
  cross = products;
}

void Moments::add(Moments other) {
  if (other.weight == 0 || weight == 0) {
    const int64_t all = rows + other.rows;
    if (weight == 0) {
      *this = std::move(other);
    }
    rows = all;
    return;
  }
  const double total = weight + other.weight;
  if (centred) {
    const at::Tensor step_f = at::sub(other.mean_f, mean_f);
    const at::Tensor step_y = at::sub(other.mean_y, mean_y);
    const double factor = weight * (other.weight / total);
    other.gram.addr_(step_f, step_f, 1, factor);
    other.cross.addr_(step_y, step_f, 1, factor);
    mean_f = at::add(mean_f, step_f, other.weight / total);
    mean_y = at::add(mean_y, step_y, other.weight / total);
  }
  gram.add_(other.gram);
  cross.add_(other.cross);
  peak = at::maximum(at::maximum(peak, other.peak), gram.diagonal());
  weight = total;
  rows += other.rows;
}

bool Moments::subtract(Moments other) {
  const int64_t left_rows = rows - other.rows;
  const double left = weight - other.weight;
  if (left_rows < 0 || left < -kWeightRounding * weight) {
    return false;
  }
  if (other.weight == 0) {
    rows = left_rows;
    return true;
  }
  if (left <= kWeightRounding * weight) {  // nothing, or rows that weigh nothing
    *this = none(features(), outputs(), centred, gram.device());
    rows = left_rows;
    return true;
  }
  if (left_rows == 0 || left <= kRounding * weight) {
    return false;  // what would be left of the sums is rounding
  }
  at::Tensor means_f = mean_f, means_y = mean_y;
  if (centred) {
    means_f = at::add(mean_f, at::sub(mean_f, other.mean_f), other.weight / left);
    means_y = at::add(mean_y, at::sub(mean_y, other.mean_y), other.weight / left);
    const at::Tensor step_f = at::sub(other.mean_f, means_f);
    const double factor = left * (other.weight / weight);
    other.gram.addr_(step_f, step_f, 1, factor);
    other.cross.addr_(at::sub(other.mean_y, means_y), step_f, 1, factor);
  }
  const at::Tensor after = at::sub(gram.diagonal(), other.gram.diagonal());
  if (after.lt(at::mul(peak, -kRounding)).any().item<bool>()) {
    return false;
  }
  gram.sub_(other.gram);
  gram.diagonal().clamp_min_(0);
  cross.sub_(other.cross);
  mean_f = means_f;
  mean_y = means_y;
  weight = left;
  rows = left_rows;
  return true;
}

}  // namespace torchbcd
