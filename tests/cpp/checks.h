// What the tests of the C++ API share: expectations that count failures, a small model and a batch.
#pragma once

#include <torch/torch.h>
#include <torchbcd/torchbcd.h>

#include <cstdio>
#include <string>
#include <vector>

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  if (!holds) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
    ++failures;
  }
}
#define EXPECT(condition) check(condition, #condition, __FILE__, __LINE__)

template <typename Error, typename F>
void check_throws(const F& f, const std::string& message, const char* file, int line) {
  try {
    f();
  } catch (const Error& error) {
    const std::string text = error.what();
    check(text.find(message) != std::string::npos, text.c_str(), file, line);
    return;
  }
  check(false, "nothing was thrown", file, line);
}
#define EXPECT_THROWS(Error, statement, message) \
  check_throws<Error>([&] { statement; }, message, __FILE__, __LINE__)

inline torch::nn::Sequential make_model(int64_t inputs = 6, int64_t classes = 3) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(inputs, 8), torch::nn::ReLU(), torch::nn::Linear(8, 7),
                              torch::nn::Tanh(), torch::nn::Linear(7, classes));
  model->to(torch::kDouble);
  return model;
}

struct Batch {
  at::Tensor x = torch::randn({40, 6}, torch::kDouble);
  at::Tensor y = torch::randint(3, {40}, torch::kLong);
};

inline bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) {
    same = torch::equal(a[i], b[i]);
  }
  return same;
}

inline std::vector<at::Tensor> copies(const torch::nn::Sequential& model) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& p : model->parameters()) {
    result.push_back(p.detach().clone());
  }
  return result;
}
