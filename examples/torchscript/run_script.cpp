// Loads what train.py saved, a scripted module with its optimizer in it, goes on training it and saves it
// again. It includes nothing of torchbcd: linking TorchBCD::TorchBCD is what makes its classes known.
//
//   run_script trainer.pt data.pt 10 trained.pt
#include <torch/script.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: run_script TRAINER DATA SWEEPS OUT\n", stderr);
    return 2;
  }
  try {
    torch::jit::Module trainer = torch::jit::load(argv[1]);
    const torch::jit::Module data = torch::jit::load(argv[2]);
    const at::Tensor x = data.attr("x").toTensor();
    const at::Tensor y = data.attr("y").toTensor();
    const int64_t sweeps = std::atol(argv[3]);
    const double objective = trainer.run_method("train_on", x, y, sweeps).toDouble();
    const at::Tensor hits = trainer.forward({x}).toTensor().argmax(1) == y;
    std::printf("objective %.10g  accuracy %.2f %%\n", objective,
                100 * hits.to(torch::kDouble).mean().item<double>());
    trainer.save(argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "run_script: %s\n", error.what());
    return 1;
  }
  return 0;
}
