// Tests of the public C++ API. What the sweeps compute is tested from Python; here: that C++ programs reach
// it, that options and errors are as in Python, that a failed step changes nothing.
//
//   api_test            runs all tests, prints the failures, exits with their number
//   api_test IN OUT     reads a checkpoint of Python's (6-8-3, no bias first), sweeps once, writes it
#include <torch/torch.h>
#include <torchbcd/torchbcd.h>

#include <barrier>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

int failures = 0;

void check(bool holds, const char* what, int line) {
  if (!holds) {
    std::fprintf(stderr, "api_test.cpp:%d: %s\n", line, what);
    ++failures;
  }
}
#define EXPECT(condition) check(condition, #condition, __LINE__)

template <typename Error, typename F>
void check_throws(const F& f, const std::string& message, int line) {
  try {
    f();
  } catch (const Error& error) {
    const std::string text = error.what();
    check(text.find(message) != std::string::npos, text.c_str(), line);
    return;
  }
  check(false, "nothing was thrown", line);
}
#define EXPECT_THROWS(Error, statement, message) check_throws<Error>([&] { statement; }, message, __LINE__)

torch::nn::Sequential make_model(int64_t inputs = 6, int64_t classes = 3) {
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

bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) {
    same = torch::equal(a[i], b[i]);
  }
  return same;
}

std::vector<at::Tensor> copies(const torch::nn::Sequential& model) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& p : model->parameters()) {
    result.push_back(p.detach().clone());
  }
  return result;
}

void versions() {
  EXPECT(std::string(TORCHBCD_VERSION) == std::to_string(TORCHBCD_VERSION_MAJOR) + "." +
                                              std::to_string(TORCHBCD_VERSION_MINOR) + "." +
                                              std::to_string(TORCHBCD_VERSION_PATCH));
}

void functions() {
  const at::Tensor a = torch::tensor({1.0, -2.0}, torch::kDouble);
  const at::Tensor b = torch::tensor({0.5, 0.5}, torch::kDouble);
  EXPECT(torch::allclose(torchbcd::prox_relu(a, b, 1.0), torch::tensor({0.75, 0.0}, torch::kDouble)));
  EXPECT(torch::allclose(torchbcd::project_box(a, -1, 0.5), torch::tensor({0.5, -1.0}, torch::kDouble)));
}

void bcd_sweeps_and_never_rises() {
  torch::nn::Sequential model = make_model();
  const Batch batch;
  torchbcd::BCD optimizer(model, torchbcd::BCDOptions().gamma(1).alpha(0.05).rho({1.0, 2.0, 0.5}));
  EXPECT(optimizer.options().rho()[1] == 2.0);
  optimizer.bind(batch.x, batch.y);
  double before = optimizer.objective();
  for (int k = 0; k < 20; ++k) {
    optimizer.step();
    const double after = optimizer.objective();
    EXPECT(after <= before * (1 + 1e-12));
    before = after;
  }
  EXPECT(optimizer.sweeps() == 20);
  const torchbcd::BCD::Variables variables = optimizer.variables();
  torchbcd::BCD other(model, torchbcd::BCDOptions().gamma(1).alpha(0.05).rho({1.0, 2.0, 0.5}));
  other.bind(batch.x, batch.y, {}, variables.U, {variables.V.begin() + 1, variables.V.end()});
  EXPECT(std::abs(other.objective() - before) <= 1e-12 * before);
  const torchbcd::BCD::Variables v = optimizer.variables();
  EXPECT(v.W.size() == 3 && v.b.size() == 3 && v.U.size() == 3 && v.V.size() == 4);
  EXPECT(torch::equal(v.V[0], batch.x));
  EXPECT(torch::equal(v.W[2], model[4]->as<torch::nn::Linear>()->weight));
  optimizer.step_rows(torch::arange(0, 40, 2));
  optimizer.step(batch.x, batch.y);
  EXPECT(optimizer.sweeps() == 22);
}

// Threads stand for the processes that have the rows between them.
void rows_in_several_processes() {
  constexpr int kRanks = 2;
  const Batch batch;
  torchbcd::BCD alone(make_model());
  alone.bind(batch.x, batch.y);
  std::vector<torchbcd::BCD> optimizers;
  for (int rank = 0; rank < kRanks; ++rank) {
    optimizers.emplace_back(make_model());
  }
  std::vector<at::Tensor> contributions(kRanks);
  std::barrier barrier(kRanks);
  std::vector<double> objectives(kRanks);
  const auto run = [&](int rank) {
    optimizers[rank].set_sum_over_ranks([&, rank](const at::Tensor& t) {
      contributions[rank] = t.clone();
      barrier.arrive_and_wait();
      t.copy_(contributions[0] + contributions[1]);
      barrier.arrive_and_wait();
    });
    const int64_t begin = rank == 0 ? 0 : 15;
    const int64_t size = rank == 0 ? 15 : 25;
    optimizers[rank].bind(batch.x.narrow(0, begin, size), batch.y.narrow(0, begin, size));
    for (int sweep = 0; sweep < 3; ++sweep) {
      optimizers[rank].step();
    }
    objectives[rank] = optimizers[rank].objective();
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  for (int sweep = 0; sweep < 3; ++sweep) {
    alone.step();
  }
  EXPECT(equal(optimizers[0].variables().W, optimizers[1].variables().W));
  EXPECT(torch::allclose(optimizers[0].variables().W[0], alone.variables().W[0], 1e-9, 1e-9));
  EXPECT(objectives[0] == objectives[1]);
  EXPECT(std::abs(objectives[0] - alone.objective()) < 1e-9 * alone.objective());
}

void relaxed_certifies() {
  torch::nn::Sequential model = make_model();
  const Batch batch;
  torchbcd::RelaxedBCD optimizer(model, torchbcd::RelaxedBCDOptions().momentum(0.3).weight_decay(0.01));
  for (int k = 0; k < 10; ++k) {
    optimizer.set_lr(1 - 0.1 * k);
    const torchbcd::RelaxedReport& report = optimizer.step(batch.x, batch.y);
    double after = report.before.value();
    for (const torchbcd::BlockDecrease& block : report.decreases) {
      EXPECT(block.decrease.value() >= -1e-12 * report.before.value());
      after -= block.decrease.value();
    }
    EXPECT(std::abs(after - optimizer.objective()) <= 1e-9 * report.before.value());
  }
  EXPECT(std::abs(optimizer.options().lr()[0] - 0.1) < 1e-12);
  const auto relaxations =
      torchbcd::RelaxedBCD(make_model(), torchbcd::RelaxedBCDOptions().relaxation(0.4).growth(2))
          .option("relaxation");
  EXPECT(relaxations == (std::vector<double>{0.8, 0.4, 0.055}));
  const auto deep = torchbcd::RelaxedBCDOptions::for_any_depth();
  EXPECT(torchbcd::RelaxedBCD(make_model(), deep).options().cap()[0] == 0.15);
  EXPECT(torchbcd::RelaxedBCD(make_model(), deep).options().relaxation()[2] == 0.5);
}

void dlam_and_dladmm() {
  const Batch batch;
  torchbcd::DLAM dlam(make_model(), torchbcd::DLAMOptions().rho(0.01).eps(0.01).joint(true));
  dlam.bind(batch.x, batch.y);
  double before = dlam.objective();
  for (int k = 0; k < 10; ++k) {
    dlam.step();
    EXPECT(dlam.objective() <= before * (1 + 1e-12));
    EXPECT(dlam.gap() <= 1e-9);
    before = dlam.objective();
  }
  const torchbcd::DLAM::Variables end = dlam.variables();
  EXPECT(end.a.size() == 3);
  dlam.bind(batch.x, batch.y);
  dlam.bind(batch.x, batch.y, {}, end.z, {end.a.begin() + 1, end.a.end()});
  EXPECT(std::abs(dlam.objective() - before) <= 1e-9 * before);
  dlam.step();
  EXPECT(dlam.objective() <= before * (1 + 1e-9));
  EXPECT_THROWS(c10::ValueError, dlam.bind(batch.x, batch.y, {}, {end.z[0]}),
                "z must hold one tensor for each of the 3");
  EXPECT_THROWS(c10::ValueError, dlam.bind(batch.x, batch.y, {}, end.z, {end.a[1] + 1, end.a[2]}),
                "in layer 1");
  torchbcd::DLADMM dladmm(make_model(), torchbcd::DLADMMOptions().rho(0.1).nu(0.2));
  EXPECT(dladmm.options().penalty()[0] == 0.2 && dladmm.options().penalty()[2] == 0.1);
  dladmm.bind(batch.x, batch.y);
  EXPECT(std::isfinite(dladmm.step().primal_residual));
}

void models_are_read() {
  const torchbcd::Mlp mlp = torchbcd::read_mlp(torch::nn::Sequential(
      torch::nn::Flatten(), torch::nn::Linear(torch::nn::LinearOptions(4, 3).bias(false)),
      torch::nn::LeakyReLU(torch::nn::LeakyReLUOptions().negative_slope(0.2)), torch::nn::Linear(3, 2),
      torchbcd::nn::Polynomial(std::vector<double>{0, 1, 0.5})));
  const torchbcd::Mlp hard = torchbcd::read_mlp(torch::nn::Sequential(
      torch::nn::Linear(4, 3), torch::nn::Hardtanh(torch::nn::HardtanhOptions().min_val(-2).max_val(0.5)),
      torch::nn::Linear(3, 3), torch::nn::ReLU6(), torch::nn::Linear(3, 3), torchbcd::nn::Hardsigmoid(),
      torch::nn::Linear(3, 2), torchbcd::nn::Sign()));
  EXPECT(hard.activations[0].text() == "hardtanh(-2, 0.5)" && hard.activations[1].text() == "hardtanh(0, 6)");
  EXPECT(hard.activations[2].text() == "hardsigmoid" && hard.activations[3].text() == "sign");
  const auto named = [](const auto& module, const char* text) {
    const torch::nn::Sequential model(torch::nn::Linear(2, 2), module);
    return torchbcd::read_mlp(model).activations[0].text() == text;
  };
  EXPECT(named(torch::nn::GELU(torch::nn::GELUOptions().approximate("tanh")), "gelu_tanh"));
  EXPECT(named(torch::nn::SELU(), "elu(1.6732632423543772, 1.0507009873554805)"));
  EXPECT(named(torch::nn::CELU(torch::nn::CELUOptions().alpha(2)), "elu(2, 1, 0.5)"));
  EXPECT(named(torch::nn::Softplus(), "softplus(1, 20)") && named(torchbcd::nn::Sine(), "sine"));
  const torch::nn::PReLU prelu;
  EXPECT_THROWS(c10::ValueError, named(prelu, ""), "PReLU (of one slope that requires no gradients)");
  prelu->weight.set_requires_grad(false);
  EXPECT(named(prelu, "leaky_relu(0.25)"));
  EXPECT(mlp.flatten && mlp.depth() == 2 && !mlp.biases[0].defined());
  EXPECT(mlp.activations[0].text() == "leaky_relu(0.2)");
  EXPECT(mlp.activations[1].text() == "polynomial(0, 1, 0.5)");
  const torchbcd::Activation parsed = torchbcd::Activation::parse("polynomial(0, 1,0.5)");
  EXPECT(parsed.name == "polynomial" && parsed.parameters == (std::vector<double>{0, 1, 0.5}));
  EXPECT_THROWS(c10::ValueError, torchbcd::Activation::parse("leaky_relu(x)"), "numbers in its parentheses");
  EXPECT_THROWS(c10::ValueError, torchbcd::Activation::parse("leaky_relu()x"), "must be a name");

  const at::Tensor u = torch::tensor({2.0});
  EXPECT(torchbcd::nn::Polynomial(std::vector<double>{1, 0, 0.5})(u).item<double>() == 3);
  EXPECT(torchbcd::nn::Hardsigmoid()(torch::tensor({-9.0, 0.0})).equal(torch::tensor({0.0, 0.5})));
  EXPECT(torchbcd::nn::Hardswish()(torch::tensor({-9.0, 1.5})).equal(torch::tensor({0.0, 1.125})));
  EXPECT(torchbcd::nn::Sign()(torch::tensor({-2.0, 0.0})).equal(torch::tensor({-1.0, 1.0})));
  EXPECT_THROWS(c10::ValueError, torchbcd::nn::Polynomial(std::vector<double>{}), "1 to 9 coefficients");
  using torch::nn::Linear;
  using torch::nn::ReLU;
  using torch::nn::Sequential;
  const auto read = [](const Sequential& model) { return torchbcd::read_mlp(model); };
  EXPECT_THROWS(c10::ValueError, read(Sequential()), "at least one Linear");
  EXPECT_THROWS(c10::ValueError, read(Sequential(ReLU())), "must follow a Linear");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Linear(2, 2), ReLU(), ReLU())),
                "follows another activation");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Linear(2, 3), Linear(2, 2))), "must take 3 inputs");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Linear(2, 2), torch::nn::Dropout())), "module 1");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Linear(2, 2), torch::nn::Flatten())), "must be the first");
  EXPECT_THROWS(c10::ValueError, read(Sequential(torch::nn::Dropout(), Linear(2, 2), torch::nn::Dropout())),
                "module 2");
  const Linear shared(2, 2);
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(Sequential(shared, ReLU(), shared)), "shares memory");
}

void modules_before_the_layers() {
  torch::manual_seed(2);
  torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(1, 2, 3));
  const torch::nn::Linear first(8, 5), last(5, 3);
  torch::nn::Sequential model(convolution, torch::nn::BatchNorm2d(2), torch::nn::Flatten(), first,
                              torch::nn::ReLU(), last);
  const at::Tensor x = torch::randn({20, 1, 4, 4}), y = torch::randint(3, {20}, torch::kLong);
  EXPECT_THROWS(c10::ValueError, torchbcd::read_mlp(model), "requires_grad_(False)");
  for (size_t i = 0; i < 2; ++i) {
    for (at::Tensor& parameter : (*model)[i]->parameters()) {
      parameter.requires_grad_(false);
    }
  }
  torch::nn::Sequential layers(torch::nn::Linear(8, 5), torch::nn::ReLU(), torch::nn::Linear(5, 3));
  const std::vector<at::Tensor> of_layers = layers->parameters(),
                                own = {first->weight, first->bias, last->weight, last->bias};
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < own.size(); ++i) {
    of_layers[i].copy_(own[i]);
  }
  const at::Tensor features =
      convolution->forward(x).flatten(1) / std::sqrt(1 + 1e-5);  // an untrained norm's
  torchbcd::BCD alone(layers), whole(model);
  alone.bind(features, y);
  whole.bind(x, y);
  for (int k = 0; k < 3; ++k) {
    alone.step();
    whole.step();
  }
  EXPECT(model->is_training() && (*model)[1]->is_training());
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT(torch::allclose(own[i], of_layers[i], 1e-3, 1e-4));
  }
  EXPECT_THROWS(c10::ValueError, whole.bind(torch::randn({20, 1, 5, 4}), y), "x must have shape (n, 8)");
  convolution->bias.requires_grad_(true);
  EXPECT_THROWS(c10::ValueError, whole.bind(x, y), "requires_grad_(False)");
}

void refusals_change_nothing() {
  torch::nn::Sequential model = make_model();
  const Batch batch;
  torchbcd::BCD optimizer(model);
  const std::vector<at::Tensor> before = copies(model);
  EXPECT_THROWS(c10::ValueError, optimizer.step(), "bind");
  EXPECT_THROWS(c10::ValueError, optimizer.step(batch.x, batch.y + 3), "");
  EXPECT_THROWS(c10::TypeError, optimizer.step(batch.x.to(torch::kFloat), batch.y), "");
  EXPECT_THROWS(c10::ValueError, optimizer.step(batch.x * NAN, batch.y), "");
  EXPECT(equal(before, copies(model)) && optimizer.sweeps() == 0);
  optimizer.set_observer([](const char*, size_t layer) {
    if (layer == 1) {
      throw std::runtime_error("stop");
    }
  });
  EXPECT_THROWS(std::runtime_error, optimizer.step(batch.x, batch.y), "stop");
  EXPECT(equal(before, copies(model)) && optimizer.sweeps() == 0);

  using torchbcd::BCDOptions;
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().gamma(-1)), "gamma");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().gamma({1.0, 2.0})),
                "each of the 3 layers");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().splitting(4)), "splitting must be 2 or 3");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().loss("hing")), "loss must be one of");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().loss_weight(0)), "loss_weight");
}

// Its numbers stand behind a loss's name.
void losses_have_numbers() {
  using torchbcd::BCDOptions;
  torch::nn::Sequential model = make_model();
  const Batch batch;
  const at::Tensor weight = torch::tensor({1.0, 2.0, 5.0}, torch::kDouble);
  torchbcd::BCD optimizer(model, BCDOptions().loss("cross_entropy(0.10, 1,2,5)"));
  EXPECT(optimizer.loss() == "cross_entropy(0.1, 1, 2, 5)");
  optimizer.bind(batch.x, batch.y);
  const auto options =
      torch::nn::functional::CrossEntropyFuncOptions().label_smoothing(0.1).weight(weight).reduction(
          torch::kSum);
  const at::Tensor expected = torch::nn::functional::cross_entropy(model->forward(batch.x), batch.y, options);
  EXPECT(std::fabs(optimizer.objective() - expected.item<double>()) < 1e-10);
  torchbcd::RelaxedBCD median(model, torchbcd::RelaxedBCDOptions().loss("quantile"));
  median.step(batch.x, torch::rand({40, 3}, torch::kDouble));
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD(model, BCDOptions().loss("quantile(2)")),
                "tau must be between 0 and 1 (got 2)");
}

// The model is looked at before every call: its parameters are followed, its modules have to stay.
void models_change() {
  const Batch batch;
  torch::nn::Sequential model = make_model();
  torchbcd::BCD optimizer(model);
  optimizer.bind(batch.x, batch.y);
  optimizer.step();
  auto* second = model->ptr<torch::nn::LinearImpl>(2)->as<torch::nn::LinearImpl>();
  {
    const torch::NoGradGuard no_grad;
    second->weight.set_data(second->weight * 0.9);
  }
  second->bias.set_requires_grad(false);
  const at::Tensor weight = second->weight.clone();
  const at::Tensor bias = second->bias.clone();
  optimizer.step();
  EXPECT(!torch::equal(weight, second->weight));
  EXPECT(torch::equal(bias, second->bias));
  model->push_back(torch::nn::ReLU());
  EXPECT_THROWS(c10::ValueError, optimizer.step(), "the model has 6 modules and had 5");

  model = make_model();
  torchbcd::RelaxedBCD relaxed(model);
  model->ptr(4)->to(torch::kFloat);
  EXPECT_THROWS(c10::ValueError, relaxed.step(batch.x, batch.y), "layer 3 was Double");
}

// One call at a time: an observer may look, another thread has to wait its turn.
void calls_one_at_a_time() {
  const Batch batch;
  torchbcd::DLADMM optimizer(make_model());
  optimizer.bind(batch.x, batch.y);
  int seen = 0;
  optimizer.set_observer([&](const char*, size_t) {
    if (seen++ > 0) {
      return;
    }
    EXPECT_THROWS(c10::Error, optimizer.step(), "an observer may only look");
    EXPECT_THROWS(c10::Error, optimizer.bind(batch.x, batch.y), "an observer may only look");
    EXPECT(optimizer.variables().W.size() == 3);
    std::thread([&] { EXPECT_THROWS(c10::Error, optimizer.objective(), "another thread"); }).join();
  });
  optimizer.step();
  EXPECT(seen > 0);
}

void options_have_names() {
  torchbcd::BCD optimizer(make_model(),
                          torchbcd::BCDOptions().state_regularizer(torchbcd::regularizers::L1(0.1)));
  optimizer.set_option("gamma", {2.0});
  EXPECT(optimizer.option("gamma") == (std::vector<double>{2, 2, 2}));
  optimizer.set_option("alpha", {1.0, 2.0, 3.0});
  EXPECT(optimizer.options().alpha()[2] == 3);
  EXPECT(std::isnan(optimizer.option("rho")[0]));
  EXPECT(optimizer.option("state_regularizer").size() == 12 &&
         optimizer.option("state_regularizer")[4] == 0.1);
  EXPECT_THROWS(c10::ValueError, optimizer.set_option("gamma", {-1.0}), "gamma");
  EXPECT(optimizer.option("gamma")[0] == 2);
  EXPECT_THROWS(c10::ValueError, optimizer.set_option("gamma", {1.0, 1.0}), "must be 1 or 3 numbers");
  EXPECT_THROWS(c10::ValueError, optimizer.set_option("gama", {1.0}), "option must be one of gamma, rho");
  EXPECT_THROWS(c10::ValueError, optimizer.set_option("inner_sweeps", {1.5}), "whole number");
}

void constraints_hold() {
  using torchbcd::regularizers::MaxNorm;
  const Batch batch;
  torch::nn::Sequential model = make_model();
  torchbcd::RelaxedBCD optimizer(
      model, torchbcd::RelaxedBCDOptions().weight_regularizer(torchbcd::regularizers::Monotone(3, {0}, {1})));
  optimizer.options().weight_regularizer()[2] = torchbcd::regularizers::Nonnegative() + MaxNorm(0.5);
  for (int k = 0; k < 5; ++k) {
    optimizer.step(batch.x, batch.y);
  }
  const std::vector<at::Tensor> w = {copies(model)[0], copies(model)[2], copies(model)[4]};
  EXPECT(w[0].select(1, 0).ge(0).all().item<bool>() && w[0].select(1, 1).le(0).all().item<bool>());
  EXPECT(w[1].ge(0).all().item<bool>() && w[2].ge(0).all().item<bool>());
  EXPECT(w[2].norm(2, 1).le(0.5).all().item<bool>());
  const std::vector<double> numbers = MaxNorm(0.5).numbers();
  optimizer.set_option("weight_regularizer", numbers);
  EXPECT(optimizer.option("weight_regularizer").size() == 3 * numbers.size());
  EXPECT(optimizer.options().weight_regularizer()[1] == MaxNorm(0.5));
  optimizer.options().weight_regularizer()[0] = torchbcd::regularizers::InputSigns({6});
  EXPECT_THROWS(c10::ValueError, optimizer.step(batch.x, batch.y), "must name inputs below 6");
}

void checkpoints_continue(const std::string& folder) {
  using torchbcd::regularizers::Box;
  using torchbcd::regularizers::ElasticNet;
  using torchbcd::regularizers::L2;
  const Batch batch;
  const std::string path = folder + "/checkpoint.pt";
  torch::nn::Sequential model = make_model();
  torchbcd::BCD optimizer(model, torchbcd::BCDOptions()
                                     .rho({1.0, std::nullopt, 2.0})
                                     .weight_regularizer({L2(0.1), ElasticNet(1e-3, 0.1), Box(-1, 1)}));
  optimizer.bind(batch.x, batch.y);
  optimizer.step();
  torchbcd::save_checkpoint(path, model, optimizer);

  torch::nn::Sequential other = make_model();
  torchbcd::BCD restored(other);
  torchbcd::load_checkpoint(path, other, restored);
  EXPECT(restored.option("weight_regularizer") == optimizer.option("weight_regularizer"));
  EXPECT(restored.options().rho()[2] == 2.0 && !restored.options().rho()[1]);
  optimizer.step();
  restored.step();
  EXPECT(equal(copies(model), copies(other)));
  EXPECT(restored.sweeps() == 2 && restored.objective() == optimizer.objective());

  const std::vector<at::Tensor> before = copies(other);
  torch::nn::Sequential narrow = make_model(5);
  torchbcd::BCD misfit(narrow);
  EXPECT_THROWS(c10::ValueError, torchbcd::load_checkpoint(path, narrow, misfit),
                "must hold 0.weight of shape");
  torchbcd::RelaxedBCD stranger(other);
  EXPECT_THROWS(c10::ValueError, torchbcd::load_checkpoint(path, other, stranger),
                "the state's optimizer must be");
  EXPECT(equal(before, copies(other)));
  EXPECT_THROWS(c10::ValueError, torchbcd::load_checkpoint(folder + "/none.pt", other, restored),
                "cannot read");
  std::ofstream(folder + "/junk.pt") << "junk";
  EXPECT_THROWS(c10::ValueError, torchbcd::load_checkpoint(folder + "/junk.pt", other, restored),
                "no checkpoint that C++ can read");
}

void heads_are_exact(const std::string& folder) {
  torch::manual_seed(1);
  const at::Tensor f = torch::randn({60, 5}), y = torch::randint(3, {60}, torch::kLong);
  torchbcd::RidgeHead head(5);
  head.partial_fit(f.slice(0, 0, 25), y.slice(0, 0, 25));
  torchbcd::RidgeHead other(5);
  other.partial_fit(f.slice(0, 25), y.slice(0, 25));
  head.merge(other);
  head.remove(f.slice(0, 50), y.slice(0, 50));
  EXPECT(head.rows() == 50 && head.outputs() == 3 && head.weight() == 50);

  const at::Tensor x = torch::cat({f, torch::ones({60, 1})}, 1).slice(0, 0, 50).to(torch::kDouble);
  const at::Tensor goal = torch::one_hot(y, 3).slice(0, 0, 50).to(torch::kDouble);
  const at::Tensor ridge = torch::diag(torch::tensor({2., 2., 2., 2., 2., 0.}, torch::kDouble));
  const at::Tensor expected = at::linalg_solve(x.t().mm(x) + ridge, x.t().mm(goal)).t();
  const auto [weight, bias] = head.solve(2.0);
  EXPECT(torch::allclose(weight, expected.slice(1, 0, 5), 1e-10, 1e-12));
  EXPECT(torch::allclose(bias, expected.select(1, 5), 1e-10, 1e-12));
  EXPECT(torch::allclose(head.path({1.0, 2.0})[1].first, weight, 1e-9, 1e-12));

  torch::nn::Linear linear(5, 3);
  head.write(linear, 2.0);
  EXPECT(torch::allclose(linear->weight, weight.to(torch::kFloat)));
  torch::nn::Linear narrow(4, 3);
  EXPECT_THROWS(c10::ValueError, head.write(narrow, 2.0), "the Linear must have a weight of shape");
  EXPECT_THROWS(c10::ValueError, head.partial_fit(f.slice(1, 1), y), "features must have shape (n, 5)");
  EXPECT_THROWS(c10::ValueError, head.remove(10 * f, y), "must be among those that were added");

  const std::string path = folder + "/head.pt";
  torchbcd::save_checkpoint(path, head);
  torchbcd::RidgeHead loaded(5);
  torchbcd::load_checkpoint(path, loaded);
  EXPECT(loaded.rows() == 50 && at::equal(loaded.solve(2.0).first, weight));
}

// What test_cpp.py compares with the same in Python.
void sweep_checkpoint(const std::string& in, const std::string& out) {
  torch::nn::Sequential model(torch::nn::Linear(torch::nn::LinearOptions(6, 8).bias(false)),
                              torch::nn::ReLU(), torch::nn::Linear(8, 3));
  model->to(torch::kDouble);
  torchbcd::BCD optimizer(model);
  torchbcd::load_checkpoint(in, model, optimizer);
  optimizer.step();
  torchbcd::save_checkpoint(out, model, optimizer);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3) {
    sweep_checkpoint(argv[1], argv[2]);
    return 0;
  }
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "torchbcd_api_test";
  std::filesystem::create_directories(folder);
  versions();
  functions();
  bcd_sweeps_and_never_rises();
  rows_in_several_processes();
  relaxed_certifies();
  dlam_and_dladmm();
  models_are_read();
  modules_before_the_layers();
  refusals_change_nothing();
  losses_have_numbers();
  models_change();
  calls_one_at_a_time();
  options_have_names();
  constraints_hold();
  checkpoints_continue(folder.string());
  heads_are_exact(folder.string());
  std::filesystem::remove_all(folder);
  std::printf("%d failures\n", failures);
  return failures;
}
