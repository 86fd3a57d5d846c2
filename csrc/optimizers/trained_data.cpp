// The data that an optimizer is given: checked, encoded and copied, some rows at a time.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cstdint>

#include "kernels/registry.h"
#include "linalg/reductions.h"
#include "optimizers/trained_mlp.h"

namespace torchbcd {
namespace {

constexpr int64_t kRowsOfCopy = 1 << 14;  // copied, encoded and checked at a time

// A strided copy, whatever the layout of the strides, and whether signs are kept aside.
at::Tensor copy_of(const at::Tensor& t) { return at::empty(t.sizes(), t.options()).copy_(t); }

void check_dense(const char* name, const char* argument, const at::Tensor& t) {
  TORCH_CHECK_TYPE(t.defined(), name, ": ", argument, " must be a tensor (got none)");
  TORCH_CHECK_TYPE(t.layout() == at::kStrided && !t.is_nested(), name, ": ", argument,
                   " must be a dense tensor (got layout ", t.layout(), "); use to_dense()");
}

void check_kind_of_model(const char* name, const char* argument, const at::Tensor& t,
                         const at::Tensor& weight) {
  TORCH_CHECK_TYPE(t.scalar_type() == weight.scalar_type(), name, ": ", argument,
                   " must have the dtype of the model, ", weight.scalar_type(), " (got ", t.scalar_type(),
                   ")");
  TORCH_CHECK_VALUE(t.device() == weight.device(), name, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", t.device(), ")");
}

// Class indices as a loss of so many outputs takes them, of the weight's dtype and device.
at::Tensor encoded_classes(const char* name, const char* argument, const at::Tensor& classes, int64_t outputs,
                           const at::Tensor& weight, const functors::AnyLoss& loss) {
  const at::Tensor like = weight.detach().select(0, 0).select(0, 0).expand({classes.size(0), outputs});
  return encode_classes(name, argument, classes, like, loss);
}

// Values for so many outputs: a column each, or (n,) for one.
void check_columns(const char* name, const char* argument, const at::Tensor& y, int64_t outputs) {
  TORCH_CHECK_VALUE(y.dim() == 2 ? y.size(1) == outputs : y.dim() == 1 && outputs == 1, name, ": ", argument,
                    " must have shape (n, ", outputs, ") (got ", y.sizes(), ")");
}

}  // namespace

// What the modules before the layers make of some rows.
at::Tensor TrainedMlp::features(const char* argument, const at::Tensor& rows) const {
  const ScratchMemory::Use usual(nullptr);
  const at::Tensor made = mlp.frozen_first(rows);
  check_dense(name, (std::string("what the modules before the layers make of ") + argument).c_str(), made);
  TORCH_CHECK_VALUE(made.dim() >= 1 && made.size(0) == rows.size(0), name,
                    ": the modules before the layers must make a row of each row of ", argument, " (got ",
                    made.sizes(), " from ", rows.sizes(), ")");
  return made.is_floating_point() ? made.to(parameters.front().weight.scalar_type()) : made;
}

// An array of `sizes`, filled by what `rows` gives of it, at most `part` rows at a time; where the storage
// has it already, that must be the same.
at::Tensor TrainedMlp::kept(const char* argument, const std::string& file, at::IntArrayRef sizes,
                            int64_t part, const Rows& rows, const RowStorage& storage) const {
  const at::Tensor own = storage.allocate(file, sizes, parameters.front().weight.options());
  for (int64_t begin = 0; begin < sizes[0]; begin += part) {
    const int64_t size = std::min(part, sizes[0] - begin);
    const at::Tensor given = rows(begin, size);
    at::Tensor to = own.narrow(0, begin, size);
    if (!storage.filled) {
      to.copy_(given);
    }
    TORCH_CHECK_VALUE(!storage.filled || at::equal(to, given), name, ": ", argument,
                      " must be what the run in scratch_dir has begun with (it differs within rows ", begin,
                      " to ", begin + size - 1, ")");
  }
  return own;
}

at::Tensor TrainedMlp::inputs(const char* argument, const at::Tensor& given,
                              const RowStorage& storage) const {
  constexpr int64_t kRowsOfModules = 1024;
  check_dense(name, argument, given);
  if (!mlp.frozen_first) {
    return layer_inputs(argument, given, storage);
  }
  TORCH_CHECK_VALUE(given.dim() >= 1, name, ": ", argument, " must have a row for each sample (got ",
                    given.sizes(), ")");
  const int64_t n = given.size(0);
  const auto made_of = [&](int64_t begin, int64_t size) {
    return features(argument, given.narrow(0, begin, size));
  };
  const at::Tensor first = made_of(0, std::min(kRowsOfModules, n));
  return kept_inputs(
      argument, n, first, kRowsOfModules,
      [&](int64_t begin, int64_t size) { return begin == 0 ? first : made_of(begin, size); }, storage);
}

int64_t TrainedMlp::rows_of_all_ranks(int64_t rows) const {
  auto total = static_cast<double>(rows);
  if (sum_over_ranks) {
    torchbcd::sum_over_ranks(sum_over_ranks, committed.front().weight.device(), {&total});
  }
  return static_cast<int64_t>(total);
}

at::Tensor TrainedMlp::layer_inputs(const char* argument, const at::Tensor& given,
                                    const RowStorage& storage) const {
  check_dense(name, argument, given);
  return kept_inputs(
      argument, given.dim() == 0 ? 1 : given.size(0), given, kRowsOfCopy,
      [&](int64_t begin, int64_t size) { return given.narrow(0, begin, size); }, storage);
}

// `like` has the kind of the rows, and their shape but for its first number, which is to be n.
at::Tensor TrainedMlp::kept_inputs(const char* argument, int64_t n, const at::Tensor& like, int64_t part,
                                   const Rows& rows, const RowStorage& storage) const {
  std::vector<int64_t> sizes = like.sizes().vec();
  if (!sizes.empty()) {
    sizes[0] = n;
  }
  if (mlp.flatten && sizes.size() > 1) {
    sizes = {n, c10::multiply_integers(sizes.begin() + 1, sizes.end())};
  }
  const at::Tensor& weight = parameters.front().weight;
  check_kind_of_model(name, argument, like, weight);
  TORCH_CHECK_VALUE(sizes.size() == 2 && sizes[1] == weight.size(1), name, ": ", argument,
                    " must have shape (n, ", weight.size(1), ") (got ", at::IntArrayRef(sizes), ")");
  TORCH_CHECK_VALUE(n > 0 || sum_over_ranks, name, ": ", argument, " must have at least one row (got ",
                    at::IntArrayRef(sizes), ")");
  const auto flat = [&](int64_t begin, int64_t size) {
    const at::Tensor x = rows(begin, size);
    return x.dim() > 2 ? x.flatten(1) : x;
  };
  const at::Tensor own = kept(argument, "x", sizes, part, flat, storage);
  TORCH_CHECK_VALUE(all_finite(own), name, ": ", argument, " must be finite (got NaN or infinite entries)");
  return own;
}

at::Tensor TrainedMlp::targets(const char* argument, const at::Tensor& y, int64_t rows,
                               const RowStorage& storage) const {
  return kept_targets(argument, y, rows, /*weighted=*/true, storage);
}

at::Tensor TrainedMlp::encoded_targets(const char* argument, const at::Tensor& y, int64_t rows) const {
  return kept_targets(argument, y, rows, /*weighted=*/false, {});
}

at::Tensor TrainedMlp::kept_targets(const char* argument, const at::Tensor& y, int64_t rows, bool weighted,
                                    const RowStorage& storage) const {
  check_dense(name, argument, y);
  const at::Tensor& weight = parameters.back().weight;
  const int64_t outputs = weight.size(0);
  TORCH_CHECK_VALUE(y.device() == weight.device(), name, ": ", argument,
                    " must be on the device of the model, ", weight.device(), " (got ", y.device(), ")");
  TORCH_CHECK_VALUE(y.dim() >= 1 && y.size(0) == rows, name, ": ", argument, " must have as many rows as x, ",
                    rows, " (got ", y.sizes(), ")");
  const auto keep = [&](const Rows& encoded) {
    const auto of_rows = [&](int64_t begin, int64_t size) {
      return weighted ? loss.class_weighted(encoded(begin, size)) : encoded(begin, size);
    };
    return kept(argument, "y", {rows, outputs}, kRowsOfCopy, of_rows, storage);
  };
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/true)) {
    TORCH_CHECK_VALUE(!loss.several(), name, ": ", argument, " must be a tuple of a tensor for each of the ",
                      loss.parts.size(), " parts of the loss, or hold values (got integers)");
    const functors::AnyLoss& of_all = loss.parts.front().loss;
    check_takes_classes(name, argument, outputs, of_all);
    const auto encode = [&](const at::Tensor& classes) {
      return encoded_classes(name, argument, classes, outputs, weight, of_all);
    };
    return y.dim() == 1 ? keep([&](int64_t begin, int64_t size) { return encode(y.narrow(0, begin, size)); })
                        : encode(y);  // which throws
  }
  TORCH_CHECK_TYPE(y.scalar_type() == weight.scalar_type(), name, ": ", argument,
                   " must hold class indices or have the dtype of the model, ", weight.scalar_type(),
                   " (got ", y.scalar_type(), ")");
  check_columns(name, argument, y, outputs);
  return keep([&](int64_t begin, int64_t size) {
    const at::Tensor own = copy_of(y.narrow(0, begin, size).reshape({size, outputs}));
    TORCH_CHECK_VALUE(all_finite(own), name, ": ", argument, " must be finite (got NaN or infinite entries)");
    loss.check_targets(name, argument, own);
    return own;
  });
}

at::Tensor TrainedMlp::joined_targets(const char* argument, const std::vector<at::Tensor>& y) const {
  const at::Tensor& weight = parameters.back().weight;
  TORCH_CHECK_VALUE(loss.several(), name, ": ", argument, " must be one tensor for the loss '", loss.text,
                    "'");
  TORCH_CHECK_VALUE(y.size() == loss.parts.size(), name, ": ", argument,
                    " must hold a tensor for each of the ", loss.parts.size(), " parts of the loss (got ",
                    y.size(), ")");
  std::vector<at::Tensor> columns;
  for (size_t k = 0; k < y.size(); ++k) {
    const OutputLoss::Part& part = loss.parts[k];
    const std::string of = loss.named(argument, k);
    const at::Tensor& own = y[k];
    check_dense(name, of.c_str(), own);
    TORCH_CHECK_VALUE(own.device() == weight.device(), name, ": ", of,
                      " must be on the device of the model, ", weight.device(), " (got ", own.device(), ")");
    TORCH_CHECK_VALUE(own.dim() >= 1, name, ": ", of, " must have a row for each sample (got ", own.sizes(),
                      ")");
    const int64_t rows = y[0].size(0);
    TORCH_CHECK_VALUE(own.size(0) == rows, name, ": ", of, " must have as many rows as that of part 1, ",
                      rows, " (got ", own.sizes(), ")");
    if (c10::isIntegralType(own.scalar_type(), /*includeBool=*/true)) {
      check_takes_classes(name, of.c_str(), part.outputs, part.loss);
      columns.push_back(encoded_classes(name, of.c_str(), own, part.outputs, weight, part.loss));
      continue;
    }
    check_kind_of_model(name, of.c_str(), own, weight);
    check_columns(name, of.c_str(), own, part.outputs);
    columns.push_back(own.detach().reshape({rows, part.outputs}));
  }
  return at::cat(columns, 1);
}

std::vector<at::Tensor> TrainedMlp::states(const char* argument, const std::vector<at::Tensor>& given,
                                           int64_t rows, bool with_last, const RowStorage& storage) const {
  const size_t count = depth() - (with_last ? 0 : 1);
  TORCH_CHECK_VALUE(given.empty() || given.size() == count, name, ": ", argument,
                    " must hold one tensor for each of the ", count, with_last ? "" : " hidden",
                    " layers (got ", given.size(), ")");
  std::vector<at::Tensor> own;
  for (size_t l = 0; l < given.size(); ++l) {
    const std::string of = std::string(argument) + " of layer " + std::to_string(l + 1);
    const at::Tensor& t = given[l];
    const at::Tensor& weight = parameters[l].weight;
    TORCH_CHECK_TYPE(t.defined(), name, ": ", of, " must be a tensor (got None)");
    check_dense(name, of.c_str(), t);
    check_kind_of_model(name, of.c_str(), t, weight);
    TORCH_CHECK_VALUE(t.dim() == 2 && t.size(0) == rows && t.size(1) == weight.size(0), name, ": ", of,
                      " must have shape (", rows, ", ", weight.size(0), ") (got ", t.sizes(), ")");
    own.push_back(storage.allocate(of, t.sizes(), t.options()).copy_(t));
    TORCH_CHECK_VALUE(all_finite(own.back()), name, ": ", of,
                      " must be finite (got NaN or infinite entries)");
  }
  return own;
}

at::Tensor TrainedMlp::row_weight(const at::Tensor& sample_weight, int64_t rows,
                                  const RowStorage& storage) const {
  const at::Tensor& weight = parameters.back().weight;
  if (!sample_weight.defined()) {
    return at::ones({1, 1}, weight.options());
  }
  check_dense(name, "sample_weight", sample_weight);
  check_kind_of_model(name, "sample_weight", sample_weight, weight);
  TORCH_CHECK_VALUE(sample_weight.dim() == 1 && sample_weight.size(0) == rows, name,
                    ": sample_weight must have shape (n,) = [", rows, "] (got ", sample_weight.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(sample_weight) && sample_weight.ge(0).all().item<bool>(), name,
                    ": sample_weight must be finite and >= 0");
  return kept(
      "sample_weight", "sample_weight", {rows, 1}, kRowsOfCopy,
      [&](int64_t begin, int64_t size) { return sample_weight.narrow(0, begin, size).unsqueeze(1); },
      storage);
}

}  // namespace torchbcd
