// One step of one optimizer: a program that only has to compile, link and run.
#include <torch/torch.h>
#include <torchbcd/torchbcd.h>

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(4, 16), torch::nn::ReLU(), torch::nn::Linear(16, 2));
  torchbcd::RelaxedBCD optimizer(model);
  const at::Tensor x = torch::randn({64, 4});
  const at::Tensor y = (x.select(1, 0) * x.select(1, 1) > 0).to(torch::kLong);
  const at::Tensor before = torch::nn::functional::cross_entropy(model->forward(x), y);
  optimizer.step(x, y);
  const at::Tensor after = torch::nn::functional::cross_entropy(model->forward(x), y);
  return after.item<float>() < before.item<float>() ? 0 : 1;
}
