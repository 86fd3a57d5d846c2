// Arrays with a row for each sample: where they are kept, and the parts in which all of one are gone through.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace torchbcd {

/// Where arrays of rows are kept: in memory, or in a folder's files.
struct RowStorage {
  using Allocate = std::function<at::Tensor(const std::string& name, at::IntArrayRef sizes,
                                            const at::TensorOptions& options)>;

  Allocate allocate = [](const std::string&, at::IntArrayRef sizes, const at::TensorOptions& options) {
    return at::empty(sizes, options);
  };
  /// Whether the arrays hold their rows already, so that what is given for them has to be the same.
  bool filled = false;
};

/// Arrays that are there, in their order, to be written into.
inline RowStorage storage_in(const std::vector<at::Tensor>& arrays) {
  return {[left = std::vector<at::Tensor>(arrays.rbegin(), arrays.rend())](
              const std::string&, at::IntArrayRef, const at::TensorOptions&) mutable {
            at::Tensor next = left.back();
            left.pop_back();
            return next;
          },
          /*filled=*/false};
}

/// Calls f(begin, size) on consecutive parts of rows, large enough for products with them to run at full
/// speed, small enough for what reads a part twice to find it in memory; once where there are no rows.
template <typename F>
void for_each_part(int64_t rows, const F& f) {
  constexpr int64_t kPartRows = 1 << 16;
  for (int64_t begin = 0; begin == 0 || begin < rows; begin += kPartRows) {
    f(begin, std::min(kPartRows, rows - begin));
  }
}

/// One of those parts, all of `rows` as they are where it is all of them.
inline at::Tensor part_of(const at::Tensor& rows, int64_t begin, int64_t size) {
  return size == rows.size(0) ? rows : rows.narrow(0, begin, size);
}

}  // namespace torchbcd
