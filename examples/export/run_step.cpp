// Trains by what export_step.py has compiled, one step of RelaxedBCD: weights, velocity and a batch in,
// weights and velocity out. It includes nothing of torchbcd: linking TorchBCD::TorchBCD is what makes its
// operator known.
//
//   run_step step.pt2 start.pt 200 trained.pt
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

std::vector<at::Tensor> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  std::vector<at::Tensor> tensors;
  const c10::IValue saved = torch::pickle_load(bytes);
  for (const c10::IValue& value : saved.toListRef()) {
    tensors.push_back(value.toTensor());
  }
  return tensors;
}

// As one vector, which torch.load takes.
void write(const std::string& path, std::vector<at::Tensor> tensors) {
  for (at::Tensor& tensor : tensors) {
    tensor = tensor.flatten();
  }
  const std::vector<char> bytes = torch::pickle_save(torch::cat(tensors));
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Batches of a fixed size, in the order of the rows, over and over.
void train(const std::string& step_path, const std::string& start_path, int64_t steps,
           const std::string& out_path) {
  constexpr int64_t kBatch = 100;
  torch::inductor::AOTIModelPackageLoader step(step_path);
  std::vector<at::Tensor> state = read(start_path);
  const at::Tensor x = state[0], y = state[1];
  state.erase(state.begin(), state.begin() + 2);
  const size_t count = state.size();
  for (size_t i = 0; i < count; ++i) {
    state.push_back(torch::zeros_like(state[i]));  // the velocity
  }
  for (int64_t k = 0; k < steps; ++k) {
    const int64_t begin = k % (x.size(0) / kBatch) * kBatch;
    std::vector<at::Tensor> inputs = {x.narrow(0, begin, kBatch), y.narrow(0, begin, kBatch)};
    inputs.insert(inputs.end(), state.begin(), state.end());
    state = step.run(inputs);
  }
  state.resize(count);
  write(out_path, state);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: run_step STEP START STEPS OUT\n", stderr);
    return 2;
  }
  try {
    train(argv[1], argv[2], std::atol(argv[3]), argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "run_step: %s\n", error.what());
    return 1;
  }
  return 0;
}
