#include "linalg/reductions.h"

#include <ATen/ops/div.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "linalg/row_storage.h"

namespace torchbcd {
namespace {

// Numbers that lie on a device one by one, fetched at once: a GPU is waited for a single time.
std::vector<double> fetch(const std::vector<at::Tensor>& scalars) {
  return scalars.empty() ? std::vector<double>() : to_doubles(at::stack(scalars));
}

// What isfinite() makes of a tensor is as large as it.
bool finite_by_parts(const at::Tensor& t) {
  bool finite = true;
  for_each_part(t.dim() == 0 ? 1 : t.size(0), [&](int64_t begin, int64_t size) {
    finite = finite && at::isfinite(t.dim() == 0 ? t : t.narrow(0, begin, size)).all().item<bool>();
  });
  return finite;
}

bool equal_on_cpu(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_contiguous() && b.is_contiguous()) {
    return std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
  }
  return at::equal(a, b);
}

}  // namespace

std::vector<double> to_doubles(const at::Tensor& t) {
  const at::Tensor values = t.to(at::kCPU, at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

double inner_product(const at::Tensor& a, const at::Tensor& b) {
  const auto flat = [](const at::Tensor& t) { return t.to(at::kDouble).reshape(-1); };
  const at::Tensor left = flat(a);
  return at::dot(left, a.is_same(b) ? left : flat(b)).item<double>();
}

// A finite sum means finite entries; only an infinite one, which finite entries can have too, costs a second
// look.
bool all_finite(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> sums;
  for (const at::Tensor& t : tensors) {
    if (t.defined() && t.numel() > 0) {
      sums.push_back(at::sum(t));
    }
  }
  const std::vector<double> fetched = fetch(sums);
  return std::all_of(fetched.begin(), fetched.end(), [](double s) { return std::isfinite(s); }) ||
         std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) {
           return !t.defined() || t.numel() == 0 || finite_by_parts(t);
         });
}

double unit_of(at::ScalarType type) {
  return type == at::kFloat ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
}

at::Tensor row_sum(const at::Tensor& matrix) { return matrix.sum(1, /*keepdim=*/true, at::kDouble); }

double as_held_by(const at::Tensor& t, double number) {
  const double most =
      t.scalar_type() == at::kFloat ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return number > most ? std::numeric_limits<double>::infinity() : number;
}

bool all_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.empty() || a.front().is_cpu()) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal_on_cpu);
  }
  std::vector<at::Tensor> differ;
  for (size_t i = 0; i < a.size(); ++i) {
    differ.push_back(at::ne(a[i], b[i]).any());
  }
  const std::vector<double> found = fetch(differ);
  return std::all_of(found.begin(), found.end(), [](double d) { return d == 0; });
}

std::vector<at::Tensor> clone_all(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& t : tensors) {
    copies.push_back(t.defined() ? t.clone() : t);
  }
  return copies;
}

at::Tensor Totals::weighed(const at::Tensor& of_rows) const {
  return weighted() ? of_rows.mul_(weights_.weight) : of_rows;
}

at::Tensor RowWeights::scaled(const at::Tensor& rows) const { return defined() ? rows * root : rows; }

double Totals::count_here(int64_t rows) const {
  return weighted() ? weights_.weight.sum(at::kDouble).item<double>() : static_cast<double>(rows);
}

at::Tensor Totals::mean(const at::Tensor& matrix) const {
  if (plain()) {
    return at::mean(matrix, 0);
  }
  const int64_t columns = matrix.size(1);
  const at::Tensor sums = at::zeros({columns + 1}, matrix.options().dtype(at::kDouble));
  if (weighted()) {
    const at::Tensor weight = weights_.weight.to(at::kDouble);
    sums.narrow(0, 0, columns).copy_(at::mv(matrix.to(at::kDouble).t(), weight.squeeze(1)));
    sums.select(0, columns).copy_(weight.sum());
  } else {
    sums.narrow(0, 0, columns).copy_(matrix.sum(0, /*keepdim=*/false, at::kDouble));
    sums.select(0, columns).fill_(static_cast<double>(matrix.size(0)));
  }
  if (several()) {
    sum_(sums);
  }
  return at::div(sums.narrow(0, 0, columns), sums.select(0, columns)).to(matrix.scalar_type());
}

std::vector<at::Tensor> Totals::of(const std::vector<at::Tensor>& sums) const {
  if (!sum_) {
    return sums;
  }
  const at::Tensor all = at::stack(sums);
  sum_(all);
  return all.unbind();
}

double Totals::of(double sum) const {
  add_up({&sum});
  return sum;
}

void Totals::add_up(const std::vector<double*>& sums) const {
  if (sum_) {
    sum_over_ranks(sum_, device_, sums);
  }
}

// From its highest byte to its lowest, by how many ranks have which, of those that have the highest so far.
double Totals::largest(double number) const {
  if (!sum_) {
    return number;
  }
  constexpr int kByte = 8;
  constexpr uint64_t kSign = uint64_t{1} << 63U;
  const auto bits = std::bit_cast<uint64_t>(number);
  const uint64_t mine = (bits & kSign) != 0 ? ~bits : bits | kSign;  // in the order of the numbers
  uint64_t found = 0;
  bool may_be = true;
  for (int shift = 64 - kByte; shift >= 0; shift -= kByte) {
    const uint64_t byte = (mine >> static_cast<unsigned>(shift)) & 255U;
    const at::Tensor counts = at::zeros({256}, at::TensorOptions().dtype(at::kDouble).device(device_));
    if (may_be) {
      counts.select(0, static_cast<int64_t>(byte)).fill_(1);
    }
    sum_(counts);
    const std::vector<double> ranks = to_doubles(counts);
    const auto highest = static_cast<uint64_t>(
        std::find_if(ranks.rbegin(), ranks.rend(), [](double n) { return n > 0; }).base() - ranks.begin() -
        1);
    may_be = may_be && byte == highest;
    found = (found << kByte) | highest;
  }
  return std::bit_cast<double>((found & kSign) != 0 ? found & ~kSign : ~found);
}

}  // namespace torchbcd
