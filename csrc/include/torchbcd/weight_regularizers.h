// Regularisers of weights alone (r_i): terms that know which unit and which input an entry belongs to.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "torchbcd/proximal_term.h"
#include "torchbcd/regularizers.h"

namespace torchbcd {

/// r(W) of a layer's weight W, whose rows w_i are units and whose columns W e_j are inputs:
///
///   sum over entries of `entries` + by_input sum_j |W e_j| + by_unit sum_i |w_i| + `proximal`,
///
/// with 2-norms, where every |w_i| <= radius, every |w_i|_1 <= l1_radius, the columns `nonnegative` are >= 0
/// and the columns `nonpositive` are <= 0; infinite elsewhere. A Regularizer is one.
struct WeightRegularizer {
  Regularizer entries = {};
  double by_input = 0;
  double by_unit = 0;
  double radius = std::numeric_limits<double>::infinity();
  double l1_radius = std::numeric_limits<double>::infinity();
  std::vector<int64_t> nonnegative, nonpositive;  // inputs, from 0
  /// Whether the whole net has to be monotone in these inputs, which its later layers then see to.
  bool monotone = false;
  /// A term of one's own, or none; with it nothing but a squared norm.
  std::shared_ptr<const ProximalTerm> proximal = {};

  WeightRegularizer() = default;
  WeightRegularizer(const Regularizer& of_entries) : entries(of_entries) {}

  bool operator==(const WeightRegularizer&) const = default;

  bool has_signs() const { return !nonnegative.empty() || !nonpositive.empty(); }
  bool of_rows() const { return by_unit != 0 || std::isfinite(radius); }
  bool bounds_sums() const { return std::isfinite(l1_radius); }
  /// Whether it is a sum over entries, one function for all.
  bool of_entries() const {
    return by_input == 0 && !of_rows() && !bounds_sums() && !has_signs() && !monotone && !proximal;
  }
  /// Whether it may be infinite.
  bool constrains() const {
    return entries.bounded() || has_signs() || std::isfinite(radius) || bounds_sums() || proximal;
  }
  /// Whether it may be more than constraints.
  bool penalizes() const {
    return entries.l1 != 0 || entries.l2 != 0 || by_input != 0 || by_unit != 0 || proximal;
  }
  bool quadratic() const { return of_entries() && entries.quadratic(); }
  bool none() const { return of_entries() && entries.none(); }

  /// As lists of numbers hold it, but for a term of one's own: (l1, l2, low, high); where there is more, then
  /// minus how many numbers follow, which no first number of another one is, and by_input, by_unit, radius,
  /// monotone, how many columns are nonnegative, l1_radius where it is finite, which 2 more than monotone
  /// says, these columns, and the nonpositive ones.
  std::vector<double> numbers() const {
    std::vector<double> all = {entries.l1, entries.l2, entries.low, entries.high};
    if (!of_entries()) {
      const auto more =
          static_cast<double>(5 + (bounds_sums() ? 1 : 0) + nonnegative.size() + nonpositive.size());
      all.insert(all.end(),
                 {-more, by_input, by_unit, radius, (monotone ? 1.0 : 0.0) + (bounds_sums() ? 2 : 0),
                  static_cast<double>(nonnegative.size())});
      if (bounds_sums()) {
        all.push_back(l1_radius);
      }
      all.insert(all.end(), nonnegative.begin(), nonnegative.end());
      all.insert(all.end(), nonpositive.begin(), nonpositive.end());
    }
    return all;
  }

  /// The one that numbers begin with, and `numbers` moved behind it; none where they are no such list.
  static std::optional<WeightRegularizer> read(const double*& numbers, const double* end) {
    const auto left = [&] { return std::distance(numbers, end); };
    if (left() < 4) {
      return std::nullopt;
    }
    WeightRegularizer r(Regularizer{numbers[0], numbers[1], numbers[2], numbers[3]});
    numbers += 4;
    if (left() == 0 || !(*numbers < 0)) {
      return r;
    }
    const double more = -*numbers++;
    const bool whole = more >= 5 && static_cast<double>(left()) >= more;
    const double positive = whole ? numbers[4] : -1;
    const bool sums = whole && numbers[3] >= 2;
    if (!(positive >= 0 && positive <= more - 5 - (sums ? 1 : 0))) {
      return std::nullopt;
    }
    r.by_input = numbers[0];
    r.by_unit = numbers[1];
    r.radius = numbers[2];
    r.monotone = numbers[3] == 1 || numbers[3] == 3;
    r.l1_radius = sums ? numbers[5] : r.l1_radius;
    const double* const columns = numbers + (sums ? 6 : 5);
    const double* const middle = columns + static_cast<int64_t>(positive);
    numbers += static_cast<int64_t>(more);
    for (const double* column = columns; column < numbers; ++column) {
      (column < middle ? r.nonnegative : r.nonpositive).push_back(static_cast<int64_t>(*column));
    }
    return r;
  }
};

/// The sum of two: weights add up, constraints intersect. That of two terms of one's own has no prox, so that
/// optimizers refuse it.
inline WeightRegularizer operator+(const WeightRegularizer& a, const WeightRegularizer& b) {
  WeightRegularizer sum = a;
  sum.entries = a.entries + b.entries;
  sum.by_input += b.by_input;
  sum.by_unit += b.by_unit;
  sum.radius = std::fmin(a.radius, b.radius);
  sum.l1_radius = std::fmin(a.l1_radius, b.l1_radius);
  sum.proximal = a.proximal ? a.proximal : b.proximal;
  if (a.proximal && b.proximal) {
    sum.proximal = std::make_shared<const ProximalTerm>(
        ProximalTerm{a.proximal->name + " + " + b.proximal->name, {}, {}});
  }
  sum.monotone = a.monotone || b.monotone;
  sum.nonnegative.insert(sum.nonnegative.end(), b.nonnegative.begin(), b.nonnegative.end());
  sum.nonpositive.insert(sum.nonpositive.end(), b.nonpositive.begin(), b.nonpositive.end());
  return sum;
}

namespace regularizers {

/// weight sum_j |W e_j|: inputs that a layer does not need get columns of zeros.
inline WeightRegularizer GroupL1ByInput(double weight) {
  WeightRegularizer r;
  r.by_input = weight;
  return r;
}
/// weight sum_i |w_i|: units that a layer does not need get rows of zeros.
inline WeightRegularizer GroupL1ByUnit(double weight) {
  WeightRegularizer r;
  r.by_unit = weight;
  return r;
}
/// |w_i|_p <= radius for every row, p = 1 or 2
inline WeightRegularizer MaxNorm(double radius, int64_t p = 2) {
  WeightRegularizer r;
  (p == 1 ? r.l1_radius : r.radius) = p == 1 || p == 2 ? radius : -1;  // which optimizers refuse
  return r;
}
/// W e_j >= 0 for some inputs, <= 0 for others
inline WeightRegularizer InputSigns(std::vector<int64_t> nonnegative, std::vector<int64_t> nonpositive = {}) {
  WeightRegularizer r;
  r.nonnegative = std::move(nonnegative);
  r.nonpositive = std::move(nonpositive);
  return r;
}
/// r(W) of one's own, by its prox and its value, as a ProximalTerm has them
inline WeightRegularizer Proximal(std::string name,
                                  std::function<at::Tensor(const at::Tensor& weight, double step)> prox,
                                  std::function<double(const at::Tensor& weight)> value) {
  WeightRegularizer r;
  r.proximal =
      std::make_shared<const ProximalTerm>(ProximalTerm{std::move(name), std::move(prox), std::move(value)});
  return r;
}
/// Of each of `depth` layers, so that every output of the net rises with the inputs `increasing` and falls
/// with the inputs `decreasing`: signs of the first layer's columns, and W >= 0 in the others. The
/// activations have to be monotone.
inline std::vector<WeightRegularizer> Monotone(size_t depth, std::vector<int64_t> increasing,
                                               std::vector<int64_t> decreasing = {}) {
  std::vector<WeightRegularizer> layers(depth, Nonnegative());
  layers.at(0) = InputSigns(std::move(increasing), std::move(decreasing));
  layers.at(0).monotone = true;
  return layers;
}

}  // namespace regularizers

}  // namespace torchbcd
