// The exact last layer by itself: ridge regression on features, fitted from any number of batches.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "torchbcd/export.h"
#include "torchbcd/split_optimizer.h"

namespace torchbcd {

/// argmin over W, b of 1/2 sum_r w_r |y_r - W f_r - b|^2 + alpha/2 |W|^2, exactly, over all rows of features
/// f and targets y that it has been given: the W block of the last layer (Zeng et al., Section 2) on its own.
/// It keeps sums in float64, of the size of the layer and not of the data, so rows may come in any number of
/// batches, in any order, from several processes (merge), and go again (remove).
///
/// Features are (n, features), of any floating-point type; targets (n, outputs), or class indices (n,), which
/// stand for one-hot rows. Everything throws c10::TypeError, c10::ValueError or c10::IndexError before it
/// changes anything. One thread at a time: another's call throws a c10::Error.
class TORCHBCD_API RidgeHead {
 public:
  /// Without `outputs` they are as many as the first targets have, and grow with the classes that appear.
  explicit RidgeHead(int64_t features, std::optional<int64_t> outputs = std::nullopt, bool bias = true);
  RidgeHead(RidgeHead&&) noexcept;
  RidgeHead& operator=(RidgeHead&&) noexcept;
  ~RidgeHead();

  int64_t features() const;
  /// 0 before there were targets, where none were given.
  int64_t outputs() const;
  bool has_bias() const;
  /// Rows so far, and the sum of their weights.
  int64_t rows() const;
  double weight() const;

  /// Adds rows. `sample_weight`, (n,), >= 0; undefined: all 1.
  void partial_fit(const at::Tensor& f, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// Adds the rows of another head.
  void merge(const RidgeHead& other);
  /// Takes rows off that were added before, with the same weights: up to rounding, as if they had never been
  /// there. Throws a ValueError where they cannot be among the rows.
  void remove(const at::Tensor& f, const at::Tensor& y, const at::Tensor& sample_weight = {});
  /// Forgets all rows.
  void reset();

  /// W (outputs, features) and b (outputs,), undefined without a bias, in float64; alpha >= 0. With alpha = 0
  /// and features that depend on each other, the W of least norm. Throws a ValueError without rows.
  std::pair<at::Tensor, at::Tensor> solve(double alpha) const;
  /// For several alphas, from one factorisation, which is kept until rows change.
  std::vector<std::pair<at::Tensor, at::Tensor>> path(c10::ArrayRef<double> alphas) const;
  /// For each alpha, the mean over these rows, weighted, and over outputs of the squared error that the row
  /// has under the fit to all rows but it: (alphas,), in float64. The rows have to be among those of the
  /// head.
  at::Tensor leave_one_out(c10::ArrayRef<double> alphas, const at::Tensor& f, const at::Tensor& y,
                           const at::Tensor& sample_weight = {}) const;
  /// Writes the solution into a layer of these sizes, in its type.
  void write(torch::nn::Linear& linear, double alpha) const;

  /// The sums, as copies.
  SavedState state() const;
  /// Throws a ValueError, changing nothing, where it is of a head with other sizes.
  void load_state(const SavedState& state);
  /// The same as torch.save can hold it: the state_dict of Python's RidgeHead.
  c10::IValue state_dict() const;
  void load_state_dict(const c10::IValue& state);

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

/// Writes a file that torch.load reads: what torch.save(head.state_dict(), path) writes in Python.
TORCHBCD_API void save_checkpoint(const std::string& path, const RidgeHead& head);
/// Reads such a file, written here or in Python.
TORCHBCD_API void load_checkpoint(const std::string& path, RidgeHead& head);

}  // namespace torchbcd
