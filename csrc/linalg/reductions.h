// Numbers of tensors: inner products in float64, finiteness, sums over all rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "linalg/rank_sums.h"

namespace torchbcd {

/// sum a b over all entries, the products too in float64.
double inner_product(const at::Tensor& a, const at::Tensor& b);
inline double norm_squared(const at::Tensor& t) { return t.defined() ? inner_product(t, t) : 0; }

/// Whether every entry is finite; undefined tensors count as such. A GPU is waited for once.
bool all_finite(const std::vector<at::Tensor>& tensors);
inline bool all_finite(const at::Tensor& t) { return all_finite(std::vector<at::Tensor>{t}); }

/// The distance from 1 to the next number of a type, float32 or float64.
double unit_of(at::ScalarType type);

/// The sums of a matrix's rows, (m, 1), in float64.
at::Tensor row_sum(const at::Tensor& matrix);

/// The number, or infinity where the entries of `t` cannot hold it: ATen throws where it is given such a
/// scalar.
double as_held_by(const at::Tensor& t, double number);

/// Whether two lists of tensors of the same kinds and shapes hold the same numbers. A GPU is waited for once.
bool all_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b);

/// Copies; undefined ones stay so.
std::vector<at::Tensor> clone_all(const std::vector<at::Tensor>& tensors);

/// Numbers that a tensor has on its device, on the host.
std::vector<double> to_doubles(const at::Tensor& t);

/// What each row counts in a sum over rows, (n, 1), as if it were there so many times; undefined where all
/// count one.
struct RowWeights {
  at::Tensor weight = {};
  at::Tensor root = {};  // of the weights: what a sum of squares wants its rows multiplied by

  static RowWeights of(const at::Tensor& weight) { return {weight, weight.sqrt()}; }
  bool defined() const { return weight.defined(); }
  /// Rows whose sum of squares is the weighted one of `rows`; a copy, where there are weights.
  at::Tensor scaled(const at::Tensor& rows) const;
};

/// Sums over all rows: of the rows here, by their weights, and over the processes, which meet on one device.
/// What it is given, where all rows are here and count one.
class Totals {
 public:
  Totals(const SumOverRanks& sum, const at::Device& device, RowWeights weights = {})
      : sum_(sum), device_(device), weights_(std::move(weights)) {}

  bool several() const { return static_cast<bool>(sum_); }
  bool weighted() const { return weights_.defined(); }
  bool plain() const { return !several() && !weighted(); }
  const RowWeights& weights() const { return weights_; }
  /// A number of each row, (n, 1), times what the row counts, in place.
  at::Tensor weighed(const at::Tensor& of_rows) const;
  /// As those of RowWeights.
  at::Tensor scaled(const at::Tensor& rows) const { return weights_.scaled(rows); }
  /// What the rows here count together.
  double count_here(int64_t rows) const;
  /// The mean of all rows, (d,), in the precision of `matrix` (n, d).
  at::Tensor mean(const at::Tensor& matrix) const;
  /// Of several numbers on the device at once, which nothing waits for.
  std::vector<at::Tensor> of(const std::vector<at::Tensor>& sums) const;
  at::Tensor of(const at::Tensor& sum) const { return of(std::vector<at::Tensor>{sum}).front(); }
  double of(double sum) const;
  /// Of several numbers at once, in place.
  void add_up(const std::vector<double*>& sums) const;
  /// Of several tensors of one type at once, in place; undefined ones stay so.
  void add_up_matrices(const std::vector<at::Tensor>& sums) const { begin(sums).wait(); }
  /// The same, under way.
  PendingSum begin(const std::vector<at::Tensor>& sums) const {
    return several() ? PendingSum(sum_, sums) : PendingSum();
  }
  /// The largest of a number that each process has, to the bit. Several messages.
  double largest(double number) const;

 private:
  const SumOverRanks& sum_;
  at::Device device_;
  RowWeights weights_;
};

}  // namespace torchbcd
