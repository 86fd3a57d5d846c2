#include "linalg/rank_sums.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <exception>

#include "linalg/reductions.h"

namespace torchbcd {

PendingSum::PendingSum(SumOverRanks sum, std::vector<at::Tensor> tensors)
    : sum_(std::move(sum)), tensors_(std::move(tensors)) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& t : tensors_) {
    if (t.defined()) {
      flat.push_back(t.reshape(-1));
    }
  }
  const at::Tensor message = at::cat(flat);
  sum_.start(message);
  message_ = message;
}

PendingSum& PendingSum::operator=(PendingSum&& other) noexcept {
  drop();
  sum_ = std::move(other.sum_);
  tensors_ = std::move(other.tensors_);
  message_ = std::move(other.message_);
  return *this;
}

void PendingSum::wait() {
  if (!defined()) {
    return;
  }
  const at::Tensor sums = std::exchange(message_, at::Tensor());
  sum_.wait(sums);
  int64_t begin = 0;
  for (const at::Tensor& t : tensors_) {
    if (t.defined()) {
      t.copy_(sums.narrow(0, begin, t.numel()).view(t.sizes()));
      begin += t.numel();
    }
  }
}

void PendingSum::drop() noexcept {
  if (!defined()) {
    return;
  }
  try {
    sum_.wait(std::exchange(message_, at::Tensor()));
  } catch (const std::exception&) {
    return;  // an error that says so is on its way already: nobody drops a sum otherwise
  }
}

void sum_over_ranks(const SumOverRanks& sum, const at::Device& device, const std::vector<double*>& numbers) {
  std::vector<double> values;
  for (const double* number : numbers) {
    values.push_back(*number);
  }
  const at::Tensor sums = at::tensor(at::ArrayRef<double>(values), at::kDouble).to(device);
  sum(sums);
  values = to_doubles(sums);
  for (size_t i = 0; i < numbers.size(); ++i) {
    *numbers[i] = values[i];
  }
}

}  // namespace torchbcd
