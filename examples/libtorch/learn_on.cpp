// Goes on learning on a device: reads a saved model, learns from rows as they come, without Python and
// without autograd, in memory that does not grow with the rows, and saves.
//
//   learn_on --model mlp.pt --widths 64,50,10 --out later.pt < rows.csv
//   learn_on --model mlp.pt --widths 64,50,10 --out later.pt --learn head --state head.pt < rows.csv
//
// A line of rows.csv is a class and the inputs: "3,0.1,0.25,...". Each batch is predicted before it is learnt
// from; the accuracy printed is of these predictions. `--learn layers` (the default) makes a step of
// RelaxedBCD of each batch. `--learn head` leaves the hidden layers alone and solves for the last one
// exactly, on all rows so far, from sums that torchbcd::RidgeHead keeps: in --state they go on from run to
// run, and `--forget N` takes each row off again after N others.
//
// mlp.pt is a file of torchbcd.save_checkpoint, of Python or C++: Linear and ReLU in turn, a RelaxedBCD.
#include <torch/torch.h>
#include <torchbcd/torchbcd.h>

#include <cstdio>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"

namespace {

struct Arguments {
  std::string model;
  std::string out;
  std::string learn = "layers";
  std::string state;
  std::vector<int64_t> widths;
  int64_t batch_size = 50;
  int64_t forget = 0;
  double alpha = 1;
};

constexpr const char* kUsage =
    "usage: learn_on --model CHECKPOINT --widths 64,50,10 --out CHECKPOINT [--batch-size 50]\n"
    "                [--learn layers|head] [--alpha 1] [--state HEAD] [--forget ROWS] < ROWS\n";

Arguments parse(int argc, char** argv) {
  Arguments a;
  const std::map<std::string, std::function<void(const std::string&)>> known = {
      {"--model", [&](const std::string& value) { a.model = value; }},
      {"--out", [&](const std::string& value) { a.out = value; }},
      {"--learn", [&](const std::string& value) { a.learn = value; }},
      {"--state", [&](const std::string& value) { a.state = value; }},
      {"--widths", [&](const std::string& value) { a.widths = numbers(value); }},
      {"--batch-size", [&](const std::string& value) { a.batch_size = std::stoll(value); }},
      {"--forget", [&](const std::string& value) { a.forget = std::stoll(value); }},
      {"--alpha", [&](const std::string& value) { a.alpha = std::stod(value); }},
  };
  parse_options(argc, argv, known, kUsage);
  if (a.model.empty() || a.out.empty() || a.widths.size() < 2 || a.batch_size < 1 || a.forget < 0 ||
      (a.learn != "layers" && a.learn != "head")) {
    refuse(kUsage);
  }
  return a;
}

torch::nn::Sequential make_model(const std::vector<int64_t>& widths) {
  torch::nn::Sequential model;
  for (size_t l = 1; l < widths.size(); ++l) {
    model->push_back(torch::nn::Linear(widths[l - 1], widths[l]));
    if (l + 1 < widths.size()) {
      model->push_back(torch::nn::ReLU());
    }
  }
  return model;
}

struct Batch {
  at::Tensor x, y;
};

// The next rows of standard input, or fewer at its end; none where there are no more.
Batch read_rows(int64_t count, int64_t inputs) {
  std::vector<float> x;
  std::vector<int64_t> y;
  for (std::string line; static_cast<int64_t>(y.size()) < count && std::getline(std::cin, line);) {
    std::istringstream stream(line);
    std::vector<float> row;
    for (std::string item; std::getline(stream, item, ',');) {
      row.push_back(std::stof(item));
    }
    if (static_cast<int64_t>(row.size()) != inputs + 1) {
      throw std::runtime_error("a row must be a class and " + std::to_string(inputs) + " inputs (got " +
                               std::to_string(row.size()) + " numbers)");
    }
    y.push_back(static_cast<int64_t>(row.front()));
    x.insert(x.end(), row.begin() + 1, row.end());
  }
  const auto rows = static_cast<int64_t>(y.size());
  return {torch::tensor(x).view({rows, inputs}), torch::tensor(y, torch::kLong)};
}

// Memory of the process's own, in KiB, where the system tells.
int64_t memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssAnon:", 0) == 0) {
      return std::stoll(line.substr(8));
    }
  }
  return 0;
}

// The last layer, solved for on all rows that have not been forgotten.
class Head {
 public:
  Head(const Arguments& arguments, torch::nn::Sequential& model)
      : arguments_(arguments),
        last_(model->ptr<torch::nn::LinearImpl>(model->size() - 1)),
        sums_(last_->options.in_features(), last_->options.out_features()) {
    if (std::filesystem::exists(arguments.state)) {
      torchbcd::load_checkpoint(arguments.state, sums_);
    }
  }

  void learn(const at::Tensor& features, const at::Tensor& y) {
    sums_.partial_fit(features, y);
    if (arguments_.forget > 0) {
      recent_.push_back({features, y});
      rows_ += y.size(0);
      while (rows_ - recent_.front().y.size(0) >= arguments_.forget) {
        sums_.remove(recent_.front().x, recent_.front().y);
        rows_ -= recent_.front().y.size(0);
        recent_.pop_front();
      }
    }
    sums_.write(last_, arguments_.alpha);
  }

  void save() const {
    if (!arguments_.state.empty()) {
      torchbcd::save_checkpoint(arguments_.state, sums_);
    }
  }

 private:
  const Arguments& arguments_;
  torch::nn::Linear last_;
  torchbcd::RidgeHead sums_;
  std::deque<Batch> recent_;
  int64_t rows_ = 0;
};

void run(const Arguments& arguments) {
  const torch::NoGradGuard no_grad;
  torch::nn::Sequential model = make_model(arguments.widths);
  torchbcd::RelaxedBCD optimizer(model);
  torchbcd::load_checkpoint(arguments.model, model, optimizer);
  std::optional<Head> head;
  if (arguments.learn == "head") {
    head.emplace(arguments, model);
  }
  int64_t rows = 0, right = 0, batches = 0, settled = 0;
  for (Batch batch = read_rows(arguments.batch_size, arguments.widths.front()); batch.y.size(0) > 0;
       batch = read_rows(arguments.batch_size, arguments.widths.front())) {
    at::Tensor features = batch.x;
    for (size_t i = 0; i + 1 < model->size(); ++i) {
      features = (model->begin() + static_cast<int64_t>(i))->forward(features);
    }
    const at::Tensor outputs = (model->end() - 1)->forward(features);
    right += (outputs.argmax(1) == batch.y).sum().item<int64_t>();
    rows += batch.y.size(0);
    if (head) {
      head->learn(features, batch.y);
    } else {
      optimizer.step(batch.x, batch.y);
    }
    if (++batches == 20) {
      settled = memory();  // the library's buffers have their size by now
    }
  }
  torchbcd::save_checkpoint(arguments.out, model, optimizer);
  if (head) {
    head->save();
  }
  std::printf("%ld rows, %.2f %% right before they were learnt, %ld KiB more memory than after 20 batches\n",
              static_cast<long>(rows),
              rows > 0 ? 100.0 * static_cast<double>(right) / static_cast<double>(rows) : 0,
              static_cast<long>(settled > 0 ? memory() - settled : 0));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "learn_on: %s\n", error.what());
    return 1;
  }
  return 0;
}
