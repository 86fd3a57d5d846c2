// What the options of the optimizers are made of: numbers for each layer, and regularisers.
#pragma once

#include <c10/util/Exception.h>

#include <concepts>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

namespace torchbcd {

/// l1 |x| + l2/2 x^2 + indicator of [low, high], summed over entries; none by default.
struct Regularizer {
  double l1 = 0;
  double l2 = 0;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

/// The regularisers of weights (r_i) and of states (s_i), by the names that torchbcd.regularizers has.
namespace regularizers {

/// weight |x|_1
inline Regularizer L1(double weight) { return {.l1 = weight}; }
/// weight/2 |x|^2
inline Regularizer L2(double weight) { return {.l2 = weight}; }
/// l1 |x|_1 + l2/2 |x|^2
inline Regularizer ElasticNet(double l1, double l2) { return {.l1 = l1, .l2 = l2}; }
/// x >= 0
inline Regularizer Nonnegative() { return {.low = 0}; }
/// low <= x <= high
inline Regularizer Box(double low = 0, double high = 1) { return {.low = low, .high = high}; }

}  // namespace regularizers

/// One value for all layers, or one for each: 0.5, or {0.5, 1.0, 2.0}.
template <typename T>
class PerLayer {
 public:
  template <std::convertible_to<T> V>
  PerLayer(V&& value) : values_{static_cast<T>(std::forward<V>(value))}, uniform_(true) {}
  PerLayer(std::initializer_list<T> values) : values_(values), uniform_(false) {}
  PerLayer(std::vector<T> values) : values_(std::move(values)), uniform_(false) {}

  /// Whether one value stands for all layers.
  bool uniform() const { return uniform_; }

  /// The value of a layer of `depth`. Throws a ValueError, with the option's name, where there are not as
  /// many.
  const T& of(size_t layer, size_t depth, const char* name) const {
    TORCH_CHECK_VALUE(uniform_ || values_.size() == depth, "torchbcd: ", name,
                      " must be one value, or one for each of the ", depth, " layers (got ", values_.size(),
                      ")");
    return values_[uniform_ ? 0 : layer];
  }

 private:
  std::vector<T> values_;
  bool uniform_;
};

/// The order of a sweep of BCD: all blocks of a layer, from the last layer to the first, as in the paper; or
/// all V and U, and then all W.
enum class UpdateOrder { kPaper, kStatesFirst };

/// The factor of DLAM's extrapolations: none; Nesterov's sequence (Algorithm 1, lines 3 and 4); or that
/// sequence, held below what Theorem 1 asks for, omega^2 < theta^k / theta^{k+1} (and likewise tau), block by
/// block.
enum class Momentum { kNone, kNesterov, kCapped };

/// How DLAM solves for z_L: by the loss's own prox, or by FISTA.
enum class OutputSolver { kProx, kFista };

}  // namespace torchbcd
