#include "optimizers/process_group.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>

namespace torchbcd {
namespace {

// An operator on a tensor. Never through Python, where wait_tensor has its autograd: gloo's threads drop the
// tensor some time after its values are there, and one that Python has seen takes the interpreter's lock for
// that, which aborts the process where the interpreter is ending. Nor is the group kept alive.
void call(const char* name, torch::jit::Stack stack) {
  const at::AutoDispatchBelowAutograd below_autograd;
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
}

void wait(const at::Tensor& values) { call("_c10d_functional::wait_tensor", {values}); }

}  // namespace

void broadcast_from_first_rank(const std::vector<at::Tensor>& tensors, const std::string& group) {
  for (const at::Tensor& t : tensors) {
    const at::Tensor values = t.detach().clone(at::MemoryFormat::Contiguous);
    call("_c10d_functional::broadcast_", {values, 0, group});
    wait(values);
    t.copy_(values);
  }
}

SumOverRanks sum_over_process_group(const std::string& group) {
  return SumOverRanks(
      [group](const at::Tensor& sums) { call("_c10d_functional::all_reduce_", {sums, "sum", group}); }, wait);
}

void Fingerprint::add(const void* data, size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(data);
  for (const unsigned char* at = begin; at != begin + bytes; ++at) {
    value_ = (value_ ^ *at) * 1099511628211U;
  }
}

void Fingerprint::add(const at::Tensor& t) {
  const at::Tensor values = t.cpu().contiguous();
  add(values.const_data_ptr(), values.nbytes());
}

// By Cauchy and Schwarz the ranks' numbers h are equal where (sum of 1)(sum of h^2) = (sum of h)^2. In pieces
// of 22 bits, which float64 holds exactly for up to 512 ranks.
Agreement agree(const SumOverRanks& sum, const at::Device& device, const Fingerprint& fingerprint,
                bool failed, const std::vector<double*>& sums) {
  constexpr uint64_t kPiece = (uint64_t{1} << 22U) - 1;
  double ranks = 1;
  double failures = failed ? 1 : 0;
  std::array<double, 3> pieces{};
  std::array<double, 3> squares{};
  std::vector<double*> numbers = {&ranks, &failures};
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i] = static_cast<double>((fingerprint.value() >> (22 * i)) & kPiece);
    squares[i] = pieces[i] * pieces[i];
    numbers.push_back(&pieces[i]);
    numbers.push_back(&squares[i]);
  }
  numbers.insert(numbers.end(), sums.begin(), sums.end());
  sum_over_ranks(sum, device, numbers);
  Agreement agreement{true, static_cast<int64_t>(failures)};
  for (size_t i = 0; i < pieces.size(); ++i) {
    agreement.same = agreement.same && ranks * squares[i] == pieces[i] * pieces[i];
  }
  return agreement;
}

// A sum over the ranks, of which the others have zeros.
std::string what_failed(const SumOverRanks& sum, const at::Device& device, const Agreement& agreement,
                        const std::string& said) {
  constexpr size_t kCharacters = 1000;
  if (agreement.failures != 1) {
    return {};
  }
  std::vector<double> bytes(kCharacters, 0);
  std::copy_n(said.begin(), std::min(said.size(), kCharacters), bytes.begin());
  const at::Tensor sums = at::tensor(bytes, at::TensorOptions().dtype(at::kDouble)).to(device);
  sum(sums);
  const at::Tensor found = sums.cpu();
  std::string text;
  for (size_t i = 0; i < kCharacters && found.const_data_ptr<double>()[i] != 0; ++i) {
    text.push_back(static_cast<char>(found.const_data_ptr<double>()[i]));
  }
  return text;
}

}  // namespace torchbcd
