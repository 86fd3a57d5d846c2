#include "linalg/spd.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tril_indices.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "linalg/row_storage.h"

namespace torchbcd {
namespace {

// Wide enough for matrix products to run at full speed, narrow enough for the small factorisations
// and inverses on the diagonal not to count.
constexpr int64_t kBlock = 128;
// Halves of a small matrix instead: the second block of 128 and 72 would have as many calls for less work. A
// tiny one is a block of its own.
constexpr int64_t kWhole = 64;
int64_t block_size(int64_t d) {
  return d <= kWhole ? std::max<int64_t>(d, 1) : (d < 2 * kBlock ? (d + 1) / 2 : kBlock);
}
// Panels of which a Gram matrix's lower triangle is made. Two at least, but for matrices so small that calls
// cost more than the quarter of the product that is saved.
constexpr int64_t kPanel = 256;
constexpr int64_t kSinglePanel = 128;
int64_t panel_width(int64_t d) {
  return d <= kSinglePanel ? std::max<int64_t>(d, 1) : std::min(kPanel, (d + 1) / 2);
}
// Rows converted to float64 at a time when a float32 Gram matrix has to be accumulated again.
constexpr int64_t kConversionRows = 4096;

struct Span {
  int64_t begin;
  int64_t size;
  int64_t end() const { return begin + size; }
};

std::vector<Span> spans(int64_t total, int64_t width) {
  std::vector<Span> result;
  for (int64_t begin = 0; begin < total; begin += width) {
    result.push_back({begin, std::min(width, total - begin)});
  }
  return result;
}

// out = beta * out + A^T A, lower triangle.
void accumulate_gram(const at::Tensor& a, const at::Tensor& out, double beta) {
  const int64_t d = a.size(1);
  for (const Span& panel : spans(d, panel_width(d))) {
    const at::Tensor left = a.narrow(1, panel.begin, d - panel.begin).t();
    const at::Tensor right = a.narrow(1, panel.begin, panel.size);
    at::Tensor target = out.narrow(0, panel.begin, d - panel.begin).narrow(1, panel.begin, panel.size);
    if (beta == 0) {
      at::mm_out(target, left, right);
    } else {
      target.addmm_(left, right, beta);
    }
  }
}

// The lower triangle of A^T A of the rows here, accumulated over them in `dtype`, so that each row is fetched
// once however many panels and sums it goes into.
at::Tensor gram_here(const GramSystem& system, at::ScalarType dtype) {
  const int64_t d = system.a.size(1);
  const int64_t n = system.a.size(0);
  at::Tensor k = at::empty({system.size(), system.size()}, system.a.options().dtype(dtype));
  const at::Tensor products = k.narrow(0, 0, d).narrow(1, 0, d);
  at::Tensor column_sums = system.ones_column ? k.select(0, d).narrow(0, 0, d) : at::Tensor();
  const auto accumulate = [&](int64_t begin, int64_t size) {
    const at::Tensor given = part_of(system.a, begin, size);
    const at::Tensor rows = given.to(dtype);
    accumulate_gram(rows, products, begin == 0 ? 0 : 1);
    if (!system.ones_column) {
      return;
    }
    const at::Tensor column =
        system.ones.defined() ? (given * part_of(system.ones, begin, size)).to(dtype) : rows;
    if (begin == 0) {
      at::sum_out(column_sums, column, 0);
    } else {
      column_sums.add_(at::sum(column, 0));
    }
  };
  for_each_part(n, [&](int64_t begin, int64_t size) {
    const int64_t part = dtype == system.a.scalar_type() ? std::max<int64_t>(size, 1) : kConversionRows;
    for (int64_t from = 0; from == 0 || from < size; from += part) {
      accumulate(begin + from, std::min(part, size - from));
    }
  });
  if (system.ones_column && system.ones.defined()) {
    k.select(0, d).select(0, d).copy_(system.ones.to(dtype).square().sum());
  } else if (system.ones_column) {
    k.select(0, d).select(0, d).fill_(static_cast<double>(n));
  }
  return k;
}

// The lower triangle of A^T A over all processes.
at::Tensor gram_of_all(const GramSystem& system, at::ScalarType dtype) {
  if (system.kept != nullptr && system.kept->defined()) {
    return system.kept->clone();
  }
  at::Tensor k = system.begun != nullptr ? system.begun->wait() : GramSum(system, dtype).wait();
  if (system.kept != nullptr) {
    *system.kept = k.clone();
  }
  return k;
}

// The lower triangle of the system's matrix.
at::Tensor assemble(const GramSystem& system, at::ScalarType dtype) {
  at::Tensor k = gram_of_all(system, dtype);
  const int64_t d = system.a.size(1);
  const at::Tensor products = k.narrow(0, 0, d).narrow(1, 0, d);
  if (system.ones_row != 0 && system.ones.defined()) {
    const at::Tensor ones = system.ones.to(dtype);
    products.addmm_(ones, ones.t(), 1, as_held_by(k, system.ones_row));
  } else if (system.ones_row != 0) {
    products.add_(as_held_by(k, system.ones_row));
  }
  products.diagonal().add_(as_held_by(k, system.ridge));
  if (system.ones_column) {
    k.select(0, d).select(0, d).add_(
        as_held_by(k, system.ones_ridge >= 0 ? system.ones_ridge : system.ridge));
  }
  return k;
}

// For each K = L L^T, whose lower triangle is in `k` (batch, d, d): inverse <- L^{-1} and pivots <- L_jj^2.
void factor_blocks(const at::Tensor& k, at::Tensor inverse, at::Tensor pivots) {
  if (k.is_cpu()) {
    cpu::small_cholesky(k, inverse, pivots);
    return;
  }
  const at::Tensor lower = std::get<0>(at::linalg_cholesky_ex(k));
  inverse.copy_(at::linalg_solve_triangular(lower, at::eye(k.size(1), k.options()), /*upper=*/false));
  at::square_out(pivots, lower.diagonal(0, 1, 2));
}

// A pivot carries a rounding error of a few units in the last place of its diagonal entry.
bool is_reliable(double relative_pivot, at::ScalarType type) {
  const double threshold = type == at::kFloat ? 64 * std::numeric_limits<float>::epsilon() : 0;
  return relative_pivot > threshold;  // false for NaN
}

// solve_row_blocks for blocks of one size, small enough for the inverse of each one's factor; false, and
// nothing written, where a pivot is not reliable.
bool solve_small_blocks(const at::Tensor& a, int64_t block, double ridge, double ones, const at::Tensor& r,
                        at::Tensor z) {
  const at::Tensor blocks = a.view({-1, block, a.size(1)});
  at::Tensor k = at::bmm(blocks, blocks.transpose(1, 2));
  if (ones != 0) {
    k.add_(as_held_by(k, ones));
  }
  at::Tensor diagonal = k.diagonal(0, 1, 2);
  diagonal.add_(as_held_by(k, ridge));
  const at::Tensor inverses = at::empty_like(k);
  at::Tensor pivots = at::empty({k.size(0), block}, k.options());
  factor_blocks(k, inverses, pivots);
  if (!is_reliable(pivots.div_(diagonal).min().item<double>(), k.scalar_type())) {
    return false;
  }
  at::Tensor solved = z.view({-1, block, z.size(1)});
  at::bmm_out(solved, inverses.transpose(1, 2), at::bmm(inverses, r.view(solved.sizes())));
  return true;
}

struct PowerIteration {
  at::Tensor vector;  // of length one, or zero where the operator has sent it there
  double norm = 0;    // of its image before it was scaled
};

// v <- A v / |A v| so many times, from a vector of ones of the kind of `like`.
template <typename Apply>
PowerIteration power_iteration(const Apply& apply, const at::Tensor& like, int steps) {
  PowerIteration at{at::ones({like.size(1)}, like.options())};
  for (int k = 0; k < steps; ++k) {
    at.vector = apply(at.vector);
    at.norm = at::linalg_vector_norm(at.vector).item<double>();
    if (!(at.norm > 0)) {
      return {at.vector, 0};
    }
    at.vector.div_(at.norm);
  }
  return at;
}

}  // namespace

GramSum::GramSum(const GramSystem& system, at::ScalarType dtype) : k_(gram_here(system, dtype)) {
  if (!system.sum_over_ranks) {
    return;
  }
  places_ =
      at::tril_indices(k_.size(0), k_.size(1), 0, at::TensorOptions().dtype(at::kLong).device(k_.device()));
  sums_ = k_.index({places_.select(0, 0), places_.select(0, 1)});
  pending_ = PendingSum(system.sum_over_ranks, {sums_});
}

at::Tensor GramSum::wait() {
  if (pending_.defined()) {
    pending_.wait();
    k_.tril_().index_put_({places_.select(0, 0), places_.select(0, 1)}, sums_);
  }
  return std::move(k_);
}

at::Tensor gram_matrix(const GramSystem& system) {
  const at::Tensor lower = assemble(system, system.a.scalar_type()).tril_();
  return lower.add(lower.tril(-1).t());
}

SpdFactor::SpdFactor(at::Tensor k) : lower_(std::move(k)) {
  const int64_t d = lower_.size(0);
  const std::vector<Span> blocks = spans(d, block_size(d));
  block_inverses_ =
      at::empty({static_cast<int64_t>(blocks.size()), block_size(d), block_size(d)}, lower_.options());
  const at::Tensor diagonal = lower_.diagonal().clone();
  relative_pivots_ = at::empty({d}, lower_.options());
  for (size_t j = 0; j < blocks.size(); ++j) {
    const Span block = blocks[j];
    const int64_t below = d - block.end();
    at::Tensor column = lower_.narrow(0, block.begin, d - block.begin).narrow(1, block.begin, block.size);
    if (block.begin > 0) {
      const at::Tensor left = lower_.narrow(1, 0, block.begin);
      column.addmm_(left.narrow(0, block.begin, d - block.begin), left.narrow(0, block.begin, block.size).t(),
                    1, -1);
    }
    const at::Tensor inverse =
        block_inverses_[static_cast<int64_t>(j)].narrow(0, 0, block.size).narrow(1, 0, block.size);
    factor_blocks(column.narrow(0, 0, block.size).unsqueeze(0), inverse.unsqueeze(0),
                  relative_pivots_.narrow(0, block.begin, block.size).unsqueeze(0));
    if (below > 0) {
      at::Tensor tail = column.narrow(0, block.size, below);
      tail.copy_(at::mm(tail, inverse.t()));
    }
  }
  relative_pivots_.div_(diagonal);
}

double SpdFactor::least_pivot() const {
  if (!least_pivot_) {
    least_pivot_ = relative_pivots_.numel() == 0 ? 1 : relative_pivots_.min().item<double>();
  }
  return *least_pivot_;
}

bool SpdFactor::reliable() const { return is_reliable(least_pivot(), relative_pivots_.scalar_type()); }

void SpdFactor::solve_(const at::Tensor& rows) const {
  if (rows.numel() == 0) {
    return;
  }
  if (rows.scalar_type() != lower_.scalar_type()) {
    at::Tensor converted = rows.to(lower_.scalar_type());
    solve_(converted);
    rows.copy_(converted);
    return;
  }
  const int64_t d = lower_.size(0);
  const std::vector<Span> blocks = spans(d, block_size(d));
  const auto columns = [&](int64_t begin, int64_t size) { return rows.narrow(1, begin, size); };
  const auto inverse = [&](size_t j) {
    const int64_t size = blocks[j].size;
    return block_inverses_[static_cast<int64_t>(j)].narrow(0, 0, size).narrow(1, 0, size);
  };
  // Of the layout of `rows`, so that copying back is fast.
  const auto multiply = [](at::Tensor x, const at::Tensor& by) {
    at::Tensor product = at::empty_like(x);
    at::mm_out(product, x, by);
    x.copy_(product);
  };
  // rows <- rows L^{-T}
  for (size_t j = 0; j < blocks.size(); ++j) {
    const Span block = blocks[j];
    at::Tensor x = columns(block.begin, block.size);
    if (block.begin > 0) {
      const at::Tensor left = lower_.narrow(0, block.begin, block.size).narrow(1, 0, block.begin);
      x.addmm_(columns(0, block.begin), left.t(), 1, -1);
    }
    multiply(x, inverse(j).t());
  }
  // rows <- rows L^{-1}
  for (size_t j = blocks.size(); j-- > 0;) {
    const Span block = blocks[j];
    at::Tensor x = columns(block.begin, block.size);
    if (block.end() < d) {
      const at::Tensor below =
          lower_.narrow(0, block.end(), d - block.end()).narrow(1, block.begin, block.size);
      x.addmm_(columns(block.end(), d - block.end()), below, 1, -1);
    }
    multiply(x, inverse(j));
  }
}

SpdFactor factor(const GramSystem& system, const char* where) {
  SpdFactor result(assemble(system, system.a.scalar_type()));
  if (result.reliable()) {
    return result;
  }
  if (system.a.scalar_type() != at::kDouble) {
    GramSystem again = system;
    again.begun = nullptr;
    again.kept = nullptr;
    result = SpdFactor(assemble(again, at::kDouble));
    if (result.reliable()) {
      return result;
    }
  }
  TORCH_CHECK_LINALG(false, where, ": the matrix of the least-squares problem has no Cholesky factor (",
                     "its data overflows or its condition number exceeds what float64 holds)");
}

void solve_row_blocks(const at::Tensor& a, int64_t block, double ridge, double ones, const at::Tensor& r,
                      const at::Tensor& z, const char* where) {
  const int64_t n = a.size(0);
  if (block <= kBlock && n % block == 0 && solve_small_blocks(a, block, ridge, ones, r, z)) {
    return;
  }
  z.copy_(r);
  for (const Span& rows : spans(n, block)) {
    factor({.a = a.narrow(0, rows.begin, rows.size).t(), .ridge = ridge, .ones_row = ones}, where)
        .solve_(z.narrow(0, rows.begin, rows.size).t());
  }
}

double spectral_norm_squared(const at::Tensor& weight) {
  const PowerIteration found =
      power_iteration([&](const at::Tensor& v) { return at::mv(weight.t(), at::mv(weight, v)); }, weight, 10);
  return found.norm > 0 ? at::mv(weight, found.vector).to(at::kDouble).square().sum().item<double>() : 0;
}

at::Tensor solve_on_entries(const at::Tensor& hessian, const at::Tensor& index, const at::Tensor& used,
                            const at::Tensor& b, const at::Tensor& ridge) {
  constexpr int64_t kEntries = 1 << 21;  // of all matrices that are factored at once
  const int64_t order = index.size(1);
  const int64_t size = std::max<int64_t>(1, kEntries / (order * order));
  const at::Tensor x = at::empty_like(b);
  for (int64_t begin = 0; begin < index.size(0); begin += size) {
    const int64_t count = std::min(size, index.size(0) - begin);
    const at::Tensor in = index.narrow(0, begin, count), here = used.narrow(0, begin, count);
    at::Tensor system = hessian.index({in.unsqueeze(2), in.unsqueeze(1)});
    system.mul_(here.unsqueeze(2)).mul_(here.unsqueeze(1));
    system.diagonal(0, 1, 2).add_(here.logical_not());
    if (ridge.defined()) {
      system.diagonal(0, 1, 2).add_(ridge.narrow(0, begin, count));
    }
    const at::Tensor factor = std::get<0>(at::linalg_cholesky_ex(system));
    x.narrow(0, begin, count).copy_(at::cholesky_solve(b.narrow(0, begin, count), factor));
  }
  return x;
}

}  // namespace torchbcd
