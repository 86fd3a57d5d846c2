// Sums over the processes that have the rows of the data between them, while other work goes on.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

namespace torchbcd {

/// Adds a tensor up over the processes, in place and to the same bits in each; empty where one process has
/// all rows. Every process starts the same sums in the same order.
class SumOverRanks {
 public:
  using Step = std::function<void(const at::Tensor&)>;

  SumOverRanks() = default;
  /// `start` may return before the sum is there, `wait` does not; without `wait`, `start` does not either.
  explicit SumOverRanks(Step start, Step wait = {}) : start_(std::move(start)), wait_(std::move(wait)) {}

  explicit operator bool() const { return static_cast<bool>(start_); }
  void start(const at::Tensor& t) const { start_(t); }
  void wait(const at::Tensor& t) const {
    if (wait_) {
      wait_(t);
    }
  }
  void operator()(const at::Tensor& t) const {
    start(t);
    wait(t);
  }

 private:
  Step start_, wait_;
};

/// The sums of tensors of one type, in one message under way; undefined tensors stay so. One that nobody
/// waits for is waited for at its end, so that the processes' next sums find each other.
class PendingSum {
 public:
  PendingSum() = default;
  PendingSum(SumOverRanks sum, std::vector<at::Tensor> tensors);
  PendingSum(PendingSum&&) noexcept = default;
  PendingSum& operator=(PendingSum&& other) noexcept;
  PendingSum(const PendingSum&) = delete;
  PendingSum& operator=(const PendingSum&) = delete;
  ~PendingSum() { drop(); }

  bool defined() const { return message_.defined(); }
  /// Until the tensors hold the sums; at once, where they do already.
  void wait();

 private:
  void drop() noexcept;

  SumOverRanks sum_;
  std::vector<at::Tensor> tensors_;
  at::Tensor message_;
};

/// Replaces each number by its sum over the processes, which meet on `device`.
void sum_over_ranks(const SumOverRanks& sum, const at::Device& device, const std::vector<double*>& numbers);

}  // namespace torchbcd
