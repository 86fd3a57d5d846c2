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

#include "checks.h"

void test_models();  // models_test.cpp

namespace {

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

// Threads stand for the processes that have the rows between them. Sums are there at once, or `later`, when
// they are waited for.
template <typename Optimizer>
void rows_in_several_processes(bool later) {
  constexpr int kRanks = 2;
  const Batch batch;
  Optimizer alone(make_model());
  alone.bind(batch.x, batch.y);
  std::vector<Optimizer> optimizers;
  for (int rank = 0; rank < kRanks; ++rank) {
    optimizers.emplace_back(make_model());
  }
  std::vector<at::Tensor> contributions(kRanks);
  std::barrier barrier(kRanks);
  std::vector<double> objectives(kRanks);
  const auto run = [&](int rank) {
    const auto sum = [&, rank](const at::Tensor& t) {
      contributions[rank] = t.clone();
      barrier.arrive_and_wait();
      t.copy_(contributions[0] + contributions[1]);
      barrier.arrive_and_wait();
    };
    if (later) {
      optimizers[rank].set_sum_over_ranks([](const at::Tensor&) {}, sum);
    } else {
      optimizers[rank].set_sum_over_ranks(sum);
    }
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
  EXPECT(std::abs(objectives[0] - alone.objective()) < 1e-9 * std::abs(alone.objective()));
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

void weights_repeat_rows() {
  torch::nn::Sequential model = make_model();
  torch::nn::Sequential twin = make_model();
  const Batch batch;
  const at::Tensor times = torch::arange(40).remainder(3);
  torchbcd::RelaxedBCD weighted(model);
  torchbcd::RelaxedBCD repeated(twin);
  weighted.bind(batch.x, batch.y, times.to(torch::kDouble));
  weighted.step();
  weighted.step(batch.x, batch.y, times.to(torch::kDouble));
  const at::Tensor x = batch.x.repeat_interleave(times, 0);
  const at::Tensor y = batch.y.repeat_interleave(times, 0);
  repeated.step(x, y);
  repeated.step(x, y);
  const std::vector<at::Tensor> mine = copies(model);
  const std::vector<at::Tensor> its = copies(twin);
  for (size_t i = 0; i < mine.size(); ++i) {
    EXPECT(torch::allclose(mine[i], its[i], 1e-9, 1e-9));
  }
  EXPECT(std::abs(weighted.objective() - repeated.objective()) <= 1e-9 * repeated.objective());
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
  optimizer.options().weight_regularizer()[2] =
      torchbcd::regularizers::Nonnegative() + MaxNorm(0.25, /*p=*/1);
  optimizer.step(batch.x, batch.y);
  EXPECT(copies(model)[4].abs().sum(1).le(0.25).all().item<bool>());
  const std::vector<double> numbers = MaxNorm(0.5).numbers();
  optimizer.set_option("weight_regularizer", numbers);
  EXPECT(optimizer.option("weight_regularizer").size() == 3 * numbers.size());
  EXPECT(optimizer.options().weight_regularizer()[1] == MaxNorm(0.5));
  optimizer.options().weight_regularizer()[0] = torchbcd::regularizers::InputSigns({6});
  EXPECT_THROWS(c10::ValueError, optimizer.step(batch.x, batch.y), "must name inputs below 6");
}

// Entries that are not zero cost 0.1 each, by functions of a program's own.
void regularizers_of_ones_own() {
  const auto count = [](const std::string& name) {
    return torchbcd::regularizers::Proximal(
        name, [](const at::Tensor& w, double step) { return w * (w.square() > 0.2 * step); },
        [](const at::Tensor& w) { return 0.1 * w.count_nonzero().item<double>(); });
  };
  const Batch batch;
  torch::nn::Sequential model = make_model();
  const auto options = torchbcd::BCDOptions().weight_regularizer(count("count"));
  torchbcd::BCD optimizer(model, torchbcd::BCDOptions(options).state_regularizer(count("of states")));
  optimizer.bind(batch.x, batch.y);
  double last = optimizer.objective();
  for (int k = 0; k < 5; ++k) {
    optimizer.step();
    EXPECT(optimizer.objective() <= last);
    last = optimizer.objective();
  }
  EXPECT(copies(model)[0].eq(0).any().item<bool>());
  EXPECT(optimizer.variables().V[1].eq(0).any().item<bool>());
  const auto state = optimizer.state_dict();
  torchbcd::BCD same(model, torchbcd::BCDOptions(options).state_regularizer(count("of states")));
  same.load_state_dict(state);
  EXPECT(same.objective() == last);
  torchbcd::BCD other(model, torchbcd::BCDOptions().weight_regularizer(count("other")));
  EXPECT_THROWS(c10::ValueError, other.load_state_dict(state),
                "the one named 'count' in that layer (got 'other')");
  EXPECT_THROWS(c10::ValueError, optimizer.option("weight_regularizer"),
                "cannot hold a regulariser of one's own");
  const std::vector<at::Tensor> before = copies(model);
  optimizer.options().weight_regularizer()[1] = torchbcd::regularizers::Proximal(
      "no prox", [](const at::Tensor& w, double) { return 2 * w; },
      [](const at::Tensor& w) { return w.abs().sum().item<double>(); });
  EXPECT_THROWS(c10::ValueError, optimizer.step(),
                "layer 2 of 3, W block: the prox of 'no prox' must be no worse");
  EXPECT(equal(copies(model), before));
  optimizer.options().weight_regularizer()[1] = count("count") + torchbcd::regularizers::L1(1.0);
  EXPECT_THROWS(c10::ValueError, optimizer.step(), "nothing but a squared norm beside 'count'");
  optimizer.options().weight_regularizer()[1] = count("one") + count("another");
  EXPECT_THROWS(c10::ValueError, optimizer.step(), "must have a name, a prox and a value");
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

void bind_in(torchbcd::BCD& optimizer, const Batch& batch, const torchbcd::ScratchDir& scratch) {
  optimizer.bind(batch.x, batch.y, {}, {}, {}, scratch);
}
void bind_in(torchbcd::RelaxedBCD& optimizer, const Batch& batch, const torchbcd::ScratchDir& scratch) {
  optimizer.bind(batch.x, batch.y, {}, scratch);
}

template <typename Optimizer, typename Options>
void runs_in_a_folder_go_on(const std::string& where, const Options& options) {
  const std::string folder = where + "/scratch";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  const Batch batch;
  torch::nn::Sequential model = make_model();
  Optimizer in_memory(model, options);
  in_memory.bind(batch.x, batch.y);
  torch::nn::Sequential other = make_model();
  {
    Optimizer optimizer(other, options);
    bind_in(optimizer, batch, {folder});
    optimizer.step();
    EXPECT_THROWS(c10::ValueError, bind_in(optimizer, batch, {folder}), "of one optimizer alone");
    EXPECT_THROWS(c10::ValueError, optimizer.state_dict(), "resume");
  }
  torch::nn::Sequential again = make_model();
  Optimizer resumed(again, options);
  EXPECT_THROWS(c10::ValueError, bind_in(resumed, batch, {folder}), "must hold no run");
  bind_in(resumed, batch, {folder, /*resume=*/true});
  EXPECT(resumed.sweeps() == 1);
  resumed.step();
  in_memory.step();
  in_memory.step();
  EXPECT(equal(copies(again), copies(model)));
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
  rows_in_several_processes<torchbcd::BCD>(/*later=*/false);
  rows_in_several_processes<torchbcd::BCD>(/*later=*/true);
  rows_in_several_processes<torchbcd::RelaxedBCD>(/*later=*/false);
  rows_in_several_processes<torchbcd::RelaxedBCD>(/*later=*/true);
  rows_in_several_processes<torchbcd::DLAM>(/*later=*/false);
  rows_in_several_processes<torchbcd::DLAM>(/*later=*/true);
  rows_in_several_processes<torchbcd::DLADMM>(/*later=*/false);
  rows_in_several_processes<torchbcd::DLADMM>(/*later=*/true);
  relaxed_certifies();
  weights_repeat_rows();
  dlam_and_dladmm();
  refusals_change_nothing();
  losses_have_numbers();
  test_models();
  calls_one_at_a_time();
  options_have_names();
  constraints_hold();
  regularizers_of_ones_own();
  runs_in_a_folder_go_on<torchbcd::BCD>(folder.string(),
                                        torchbcd::BCDOptions().loss("cross_entropy").alpha(0.1));
  runs_in_a_folder_go_on<torchbcd::RelaxedBCD>(folder.string(),
                                               torchbcd::RelaxedBCDOptions().loss("cross_entropy"));
  checkpoints_continue(folder.string());
  heads_are_exact(folder.string());
  std::filesystem::remove_all(folder);
  std::printf("%d failures\n", failures);
  return failures;
}
