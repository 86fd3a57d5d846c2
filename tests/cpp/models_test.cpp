// Tests of what C++ programs give as models.
#include <cmath>
#include <string>
#include <vector>

#include "checks.h"

namespace {

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
  EXPECT(named(prelu, "prelu"));
  const torch::nn::PReLU several(torch::nn::PReLUOptions().num_parameters(2));
  EXPECT_THROWS(c10::ValueError, named(several, ""), "PReLU (of one slope)");
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

void residuals_are_layers() {
  using torch::nn::Linear;
  using torch::nn::ReLU;
  using torch::nn::Sequential;
  using torchbcd::nn::Residual;
  torch::manual_seed(3);
  Sequential model(Linear(6, 5), ReLU(), Residual(Sequential(Linear(5, 8), ReLU(), Linear(8, 5))),
                   Residual(Sequential(ReLU(), Linear(5, 4), torch::nn::GELU(), Linear(4, 5))), Linear(5, 3));
  model->to(torch::kDouble);
  const torchbcd::Mlp mlp = torchbcd::read_mlp(model);
  EXPECT(mlp.depth() == 6 && mlp.skips.size() == 2);
  EXPECT(mlp.skips[0].from == 0 && mlp.skips[0].to == 2 && mlp.skips[0].activated);
  EXPECT(mlp.skips[1].from == 2 && mlp.skips[1].to == 4 && !mlp.skips[1].activated);
  const Batch batch;
  torchbcd::BCD bcd(model);
  bcd.bind(batch.x, batch.y);
  double before = bcd.objective();
  for (int k = 0; k < 20; ++k) {
    bcd.step();
    EXPECT(bcd.objective() <= before * (1 + 1e-12));
    before = bcd.objective();
  }
  torchbcd::RelaxedBCD relaxed(model, torchbcd::RelaxedBCDOptions().guard(true));
  const auto loss = [&] {
    const at::Tensor target = torch::one_hot(batch.y, 3).to(torch::kDouble);
    return (model->forward(batch.x) - target).square().sum().item<double>() / 2;
  };
  double was = loss();
  for (int k = 0; k < 10; ++k) {
    relaxed.step(batch.x, batch.y);
    EXPECT(loss() <= was * (1 + 1e-12));
    was = loss();
  }
  const auto read = [](const Sequential& of) { return torchbcd::read_mlp(of); };
  EXPECT_THROWS(c10::ValueError, read(Sequential(Residual(Sequential(Linear(2, 2), ReLU())))),
                "must end with a Linear");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Residual(Sequential(Linear(2, 2))))),
                "at least two Linear modules");
  EXPECT_THROWS(c10::ValueError, read(Sequential(Residual(Sequential(Linear(2, 3), ReLU(), Linear(3, 3))))),
                "a Residual of 2 inputs");
  EXPECT_THROWS(c10::ValueError, torchbcd::DLAM{model}, "takes no Residual");
  torchbcd::Mlp by_hand = mlp;
  by_hand.skips[0].to = 1;
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD{by_hand}, "at least two further on");
}

// A Dropout behind an activation, as its mode is by the time of each call.
void dropouts_are_read() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Dropout(0.5),
                              torch::nn::Linear(6, 3));
  model->to(torch::kDouble);
  EXPECT(torchbcd::read_mlp(model).activations[0].text() == "relu, dropout(0.5)");
  EXPECT(torchbcd::Activation::parse("relu, dropout(0.5)").dropout == 0.5);
  EXPECT_THROWS(c10::ValueError, torchbcd::Activation::parse("relu, dropout(2)"), "must be a probability");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD{model}, "no Dropout in train mode");
  torchbcd::RelaxedBCD optimizer(model);
  const at::Tensor x = torch::randn({20, 4}, torch::kDouble);
  const at::Tensor y = torch::randn({20, 3}, torch::kDouble);
  const auto dropped = [&] {
    optimizer.step(x, y);
    const torchbcd::RelaxedBCD::Variables at = optimizer.variables();
    return at.V[1].eq(0).logical_and(at.U[0].gt(0)).any().item<bool>();
  };
  EXPECT(dropped());
  model->eval();
  EXPECT(!dropped());
}

// A LayerNorm before or behind an activation, and a PReLU's slope, trained with the layer in front of them.
void layer_norms_are_read() {
  torch::manual_seed(0);
  using torch::nn::LayerNorm;
  using torch::nn::Linear;
  const auto norm = [] { return LayerNorm(torch::nn::LayerNormOptions({6})); };
  torch::nn::Sequential model(Linear(4, 6), norm(), torch::nn::GELU(), Linear(6, 6), torch::nn::PReLU(),
                              norm(), Linear(6, 3));
  model->to(torch::kDouble);
  const torchbcd::Mlp mlp = torchbcd::read_mlp(model);
  EXPECT(mlp.activations[0].text() == "layer_norm(1e-05), gelu");
  EXPECT(mlp.activations[1].text() == "prelu, layer_norm(1e-05)" && mlp.slopes[1].numel() == 1);
  EXPECT(mlp.scales[0].is_same(model->parameters()[2]) && !mlp.shifts[2].defined());
  for (const char* text :
       {"layer_norm(1e-05), leaky_relu(0.2), dropout(0.5)", "polynomial(0, 0.5, 1), layer_norm(0.1)"}) {
    EXPECT(torchbcd::Activation::parse(text).text() == text);
  }
  EXPECT_THROWS(c10::ValueError, torchbcd::Activation::parse("relu, layer_norm"), "once, with its eps");
  EXPECT_THROWS(c10::ValueError, torchbcd::Activation::parse("relu, relu"), "must be one activation");
  EXPECT_THROWS(c10::ValueError, torchbcd::BCD{model}, "a LayerNorm joins the units");
  const at::Tensor x = torch::randn({30, 4}, torch::kDouble), y = torch::randint(3, {30}, torch::kLong);
  torchbcd::RelaxedBCD optimizer(model, torchbcd::RelaxedBCDOptions().loss("cross_entropy"));
  const std::vector<at::Tensor> before = [&] {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& p : model->parameters()) {
      copies.push_back(p.detach().clone());
    }
    return copies;
  }();
  const at::Tensor outputs = model->forward(x).detach();
  double loss = torch::nn::functional::cross_entropy(outputs, y).item<double>();
  for (int k = 0; k < 10; ++k) {
    optimizer.step(x, y);
  }
  EXPECT(torch::nn::functional::cross_entropy(model->forward(x), y).item<double>() < loss);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT(!torch::equal(before[i], model->parameters()[i]));
  }
  const auto prelu = model->ptr<torch::nn::PReLUImpl>(4);
  prelu->weight.requires_grad_(false);
  const double slope = prelu->weight.item<double>();
  optimizer.step(x, y);
  EXPECT(prelu->weight.item<double>() == slope);
  model->ptr<torch::nn::LayerNormImpl>(1)->options.eps(1e-3);
  EXPECT_THROWS(c10::ValueError, optimizer.step(x, y), "module 1 of the model");
}

// Several losses, each of outputs of its own, whose targets are joined.
void losses_have_parts() {
  const Batch batch;
  torchbcd::RelaxedBCD optimizer(
      make_model(), torchbcd::RelaxedBCDOptions().loss("multi_output(2:cross_entropy, 1:0.50*quantile)"));
  EXPECT(optimizer.loss() == "multi_output(2: cross_entropy, 1: 0.5 * quantile)");
  const at::Tensor classes = batch.y.remainder(2);
  const at::Tensor numbers = batch.x.select(1, 0).sin();
  const at::Tensor joined = optimizer.joined_targets({classes, numbers});
  EXPECT(at::equal(joined, at::cat({at::one_hot(classes, 2).to(at::kDouble), numbers.unsqueeze(1)}, 1)));
  const double before = optimizer.step(batch.x, joined).before.value();
  EXPECT(optimizer.objective() < before);
  EXPECT_THROWS(c10::ValueError, optimizer.step(batch.x, batch.y), "for each of the 2 parts of the loss");
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

}  // namespace

void test_models() {
  models_are_read();
  modules_before_the_layers();
  residuals_are_layers();
  models_change();
  losses_have_parts();
  dropouts_are_read();
  layer_norms_are_read();
}
