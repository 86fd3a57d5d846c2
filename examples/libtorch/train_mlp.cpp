// Trains an MLP by RelaxedBCD, from C++ alone, on data in IDX format; writes and reads checkpoints that
// Python programs share.
//
//   train_mlp --data /usr/share/datasets/fashion-mnist --epochs 3 --save mlp.pt
//   train_mlp --data /usr/share/datasets/fashion-mnist --epochs 1 --load mlp.pt
#include <torch/torch.h>
#include <torchbcd/torchbcd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <string>

#include "arguments.h"
#include "idx.h"

namespace {

struct Arguments {
  std::string data = "/usr/share/datasets/fashion-mnist";
  std::vector<int64_t> hidden = {300, 300, 300};
  int64_t epochs = 3;
  int64_t batch_size = 200;
  uint64_t seed = 0;
  std::string load;
  std::string save;
};

constexpr const char* kUsage =
    "usage: train_mlp [--data FOLDER] [--hidden 300,300,300] [--epochs 3] [--batch-size 200] [--seed 0]\n"
    "                 [--load CHECKPOINT] [--save CHECKPOINT]\n";

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  const std::map<std::string, std::function<void(const std::string&)>> known = {
      {"--data", [&](const std::string& value) { arguments.data = value; }},
      {"--hidden", [&](const std::string& value) { arguments.hidden = numbers(value); }},
      {"--epochs", [&](const std::string& value) { arguments.epochs = std::stoll(value); }},
      {"--batch-size", [&](const std::string& value) { arguments.batch_size = std::stoll(value); }},
      {"--seed", [&](const std::string& value) { arguments.seed = std::stoull(value); }},
      {"--load", [&](const std::string& value) { arguments.load = value; }},
      {"--save", [&](const std::string& value) { arguments.save = value; }},
  };
  parse_options(argc, argv, known, kUsage);
  return arguments;
}

// He's initialisation.
torch::nn::Sequential make_model(int64_t inputs, const std::vector<int64_t>& hidden, int64_t classes) {
  torch::nn::Sequential model;
  for (const int64_t width : hidden) {
    torch::nn::Linear linear(inputs, width);
    torch::nn::init::kaiming_normal_(linear->weight, 0, torch::kFanIn, torch::kReLU);
    torch::nn::init::zeros_(linear->bias);
    model->push_back(linear);
    model->push_back(torch::nn::ReLU());
    inputs = width;
  }
  model->push_back(torch::nn::Linear(inputs, classes));
  return model;
}

double accuracy(torch::nn::Sequential& model, const at::Tensor& x, const at::Tensor& y) {
  const torch::NoGradGuard no_grad;
  return 100 * (model->forward(x).argmax(1) == y).to(torch::kDouble).mean().item<double>();
}

void run(const Arguments& arguments) {
  const Data data = load_data(arguments.data);
  torch::manual_seed(arguments.seed);
  torch::nn::Sequential model =
      make_model(data.x.size(1), arguments.hidden, data.y.max().item<int64_t>() + 1);
  torchbcd::RelaxedBCD optimizer(model);
  if (!arguments.load.empty()) {
    torchbcd::load_checkpoint(arguments.load, model, optimizer);
  }

  at::Generator shuffle = at::detail::createCPUGenerator(arguments.seed);
  const int64_t n = data.x.size(0);
  const int64_t steps = arguments.epochs * ((n + arguments.batch_size - 1) / arguments.batch_size);
  int64_t step = 0;
  double seconds = 0;
  for (int64_t epoch = 1; epoch <= arguments.epochs; ++epoch) {
    const auto start = std::chrono::steady_clock::now();
    double loss = 0;
    for (const at::Tensor& rows : torch::randperm(n, shuffle, torch::kLong).split(arguments.batch_size)) {
      optimizer.set_lr(1 - static_cast<double>(step++) / static_cast<double>(steps));
      loss += optimizer.step(data.x.index_select(0, rows), data.y.index_select(0, rows)).before.value();
    }
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("epoch %2ld  loss %.4f  train %.2f %%  test %.2f %%  %.1f s\n", static_cast<long>(epoch),
                loss / static_cast<double>(n), accuracy(model, data.x, data.y),
                accuracy(model, data.x_test, data.y_test), seconds);
    std::fflush(stdout);
  }
  if (!arguments.save.empty()) {
    torchbcd::save_checkpoint(arguments.save, model, optimizer);
    std::printf("saved: %s\n", arguments.save.c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_mlp: %s\n", error.what());
    return 1;
  }
  return 0;
}
