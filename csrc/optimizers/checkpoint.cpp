#include "torchbcd/checkpoint.h"

#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/csrc/jit/serialization/pickler.h>

#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "optimizers/dicts.h"
#include "optimizers/pickles.h"
#include "torchbcd/ridge_head.h"

namespace torchbcd {
// torch::pickle_save, without the tags for TorchScript's types, which torch.load refuses by default.
std::vector<char> pickled(const c10::IValue& value) {
  std::vector<char> pickle;
  torch::jit::Pickler pickler(
      [&](const char* bytes, size_t size) { pickle.insert(pickle.end(), bytes, bytes + size); }, nullptr,
      nullptr, nullptr, nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(value);
  pickler.stop();
  std::vector<char> file;
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* bytes, size_t size) {
    const char* begin = static_cast<const char*>(bytes);
    file.insert(file.end(), begin, begin + size);
    return size;
  });
  torch::jit::writeArchiveAndTensors("data", pickle.data(), pickle.size(), pickler.tensorData(), writer);
  writer.writeEndOfFile();
  return file;
}

c10::IValue unpickled(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TORCH_CHECK_VALUE(file.good(), "torchbcd: cannot read ", path);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  try {
    return torch::jit::pickle_load(bytes);
  } catch (const c10::Error& error) {
    TORCH_CHECK_VALUE(false, "torchbcd: ", path,
                      " is no checkpoint that C++ can read (an OrderedDict, such as ",
                      "model.state_dict(), it cannot: save with torchbcd.save_checkpoint): ",
                      error.what_without_backtrace());
  }
}

namespace {

void write_pickle(const std::string& path, const c10::IValue& value) {
  const std::vector<char> bytes = pickled(value);
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  TORCH_CHECK(file.good(), "torchbcd: cannot write ", path);
}

}  // namespace

void save_checkpoint(const std::string& path, const RidgeHead& head) {
  write_pickle(path, head.state_dict());
}

void load_checkpoint(const std::string& path, RidgeHead& head) { head.load_state_dict(unpickled(path)); }

void save_checkpoint(const std::string& path, const torch::nn::Sequential& model, SplitOptimizer& optimizer) {
  c10::impl::GenericDict parameters = python_dict();
  for (const auto& parameter : model->named_parameters()) {
    parameters.insert(parameter.key(), parameter.value().detach());
  }
  c10::impl::GenericDict checkpoint = python_dict();
  checkpoint.insert("model", parameters);
  checkpoint.insert("optimizer", optimizer.state_dict());
  write_pickle(path, checkpoint);
}

void load_checkpoint(const std::string& path, torch::nn::Sequential& model, SplitOptimizer& optimizer) {
  const c10::NoGradGuard no_grad;
  const c10::IValue loaded = unpickled(path);
  TORCH_CHECK_VALUE(loaded.isGenericDict(), "torchbcd: ", path, " must hold a dict");
  const c10::impl::GenericDict checkpoint = loaded.toGenericDict();
  for (const char* key : {"model", "optimizer"}) {
    TORCH_CHECK_VALUE(checkpoint.contains(key) && checkpoint.at(key).isGenericDict(), "torchbcd: ", path,
                      " must hold a dict '", key, "'");
  }
  const c10::impl::GenericDict saved = checkpoint.at("model").toGenericDict();
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to, from
  for (const auto& parameter : model->named_parameters()) {
    const std::string& name = parameter.key();
    TORCH_CHECK_VALUE(saved.contains(name) && saved.at(name).isTensor() &&
                          saved.at(name).toTensor().sizes() == parameter.value().sizes(),
                      "torchbcd: ", path, " must hold ", name, " of shape ", parameter.value().sizes());
    copies.emplace_back(parameter.value(), saved.at(name).toTensor());
  }
  TORCH_CHECK_VALUE(saved.size() == copies.size(), "torchbcd: ", path, " must hold the model's ",
                    copies.size(), " tensors (got ", saved.size(), ")");
  std::vector<at::Tensor> before;
  for (const auto& [to, from] : copies) {
    before.push_back(to.clone());
    to.copy_(from);
  }
  try {
    optimizer.load_state_dict(checkpoint.at("optimizer"));
  } catch (...) {
    for (size_t i = 0; i < copies.size(); ++i) {
      copies[i].first.copy_(before[i]);
    }
    throw;
  }
}

}  // namespace torchbcd
