#include "torchbcd/ridge_head.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "linalg/moments.h"
#include "linalg/reductions.h"
#include "linalg/spd.h"
#include "optimizers/call.h"
#include "optimizers/saved_state.h"

namespace torchbcd {
namespace {

constexpr const char* kName = "torchbcd.RidgeHead";
constexpr int64_t kRotatedEntries = 1 << 23;  // of rows rotated at once

// 1 / (values + alpha), and zero for what is rounding: the inverse, or, with alpha = 0, the pseudo-inverse.
at::Tensor inverse_of(const at::Tensor& values, double alpha) {
  const at::Tensor shifted = at::add(values, alpha);
  const double unit = std::numeric_limits<double>::epsilon() * static_cast<double>(values.numel());
  const double floor = unit * shifted.max().item<double>();
  return at::where(shifted.gt(floor), at::reciprocal(shifted), at::zeros_like(shifted));
}

}  // namespace

struct RidgeHead::Data {
  // gram = Q diag(values) Q^T, and cross Q.
  struct Spectrum {
    at::Tensor values, vectors, cross;
  };

  // Rows as they are checked: features, targets or classes (int64), weights or none.
  struct Rows {
    at::Tensor f, y, w;
    int64_t outputs;
  };

  int64_t features;
  int64_t outputs;  // 0: not known yet
  bool grows;       // with the classes that appear
  bool bias;
  Moments moments;  // undefined tensors without rows
  mutable std::optional<Spectrum> spectrum;
  mutable Caller caller;

  Call call(Call::Kind kind) const { return {caller, kName, kind}; }
  Rows checked(const at::Tensor& f, const at::Tensor& y, const at::Tensor& w, bool adding) const;
  void check_has_rows(const char* method) const;
  void start(int64_t count, const at::Device& device);
  const Spectrum& decomposed() const;
  at::Tensor solved(double alpha) const;
  at::Tensor bias_of(const at::Tensor& weight) const;
};

RidgeHead::Data::Rows RidgeHead::Data::checked(const at::Tensor& f, const at::Tensor& y, const at::Tensor& w,
                                               bool adding) const {
  const auto is_dense = [](const char* argument, const at::Tensor& t) {
    TORCH_CHECK_TYPE(t.defined() && t.layout() == at::kStrided && !t.is_nested(), kName, ": ", argument,
                     " must be a dense tensor");
  };
  is_dense("features", f);
  is_dense("y", y);
  TORCH_CHECK_TYPE(f.is_floating_point(), kName, ": features must be floating-point numbers (got ",
                   f.scalar_type(), ")");
  TORCH_CHECK_VALUE(f.dim() == 2 && f.size(1) == features, kName, ": features must have shape (n, ", features,
                    ") (got ", f.sizes(), ")");
  const at::Device device = moments.gram.defined() ? moments.gram.device() : f.device();
  TORCH_CHECK_VALUE(f.device() == device && y.device() == device, kName,
                    ": features and y must be on one device, that of earlier ones, ", device, " (got ",
                    f.device(), " and ", y.device(), ")");
  TORCH_CHECK_VALUE(y.dim() >= 1 && y.size(0) == f.size(0), kName, ": y must have as many rows as features, ",
                    f.size(0), " (got ", y.sizes(), ")");
  TORCH_CHECK_VALUE(all_finite(f), kName, ": features must be finite (got NaN or infinite entries)");
  Rows rows{f.detach(), {}, {}, outputs};
  if (c10::isIntegralType(y.scalar_type(), /*includeBool=*/true)) {
    TORCH_CHECK_VALUE(y.dim() == 1, kName, ": y of class indices must have shape (n,) = [", f.size(0),
                      "] (got ", y.sizes(), ")", y.dim() == 2 && y.size(1) == 1 ? "; use squeeze(1)" : "");
    TORCH_CHECK_VALUE(outputs != 1 || grows, kName,
                      ": y holds integers, which are class indices, and one output tells no classes apart; "
                      "give numbers, y[:, None].float()");
    rows.y = y.to(at::kLong);
    if (y.numel() > 0) {
      const int64_t least = rows.y.min().item<int64_t>();
      const int64_t greatest = rows.y.max().item<int64_t>();
      const bool fits = greatest < outputs || (grows && adding);
      TORCH_CHECK_INDEX(least >= 0 && fits, kName, ": y must hold classes from 0",
                        grows && adding ? std::string() : c10::str(" to ", outputs - 1), " (got ",
                        least < 0 ? least : greatest, ")");
      rows.outputs = std::max(outputs, greatest + 1);
    }
  } else {
    TORCH_CHECK_TYPE(y.is_floating_point(), kName,
                     ": y must hold class indices or floating-point numbers (got ", y.scalar_type(), ")");
    const int64_t columns = y.dim() == 1 ? 1 : y.size(1);
    TORCH_CHECK_VALUE(y.dim() <= 2 && columns > 0 && (outputs == 0 ? adding : columns == outputs), kName,
                      ": y must have shape (n, ", outputs == 0 ? "outputs" : std::to_string(outputs),
                      ") (got ", y.sizes(), ")");
    TORCH_CHECK_VALUE(all_finite(y), kName, ": y must be finite (got NaN or infinite entries)");
    rows.y = (y.dim() == 1 ? y.unsqueeze(1) : y).detach();
    rows.outputs = columns;
  }
  if (w.defined()) {
    is_dense("sample_weight", w);
    TORCH_CHECK_TYPE(w.is_floating_point(), kName, ": sample_weight must hold floating-point numbers (got ",
                     w.scalar_type(), ")");
    TORCH_CHECK_VALUE(w.dim() == 1 && w.size(0) == f.size(0) && w.device() == device, kName,
                      ": sample_weight must have shape (n,) = [", f.size(0), "] and be on ", device, " (got ",
                      w.sizes(), " on ", w.device(), ")");
    TORCH_CHECK_VALUE(w.numel() == 0 || (all_finite(w) && w.min().item<double>() >= 0), kName,
                      ": sample_weight must be finite and >= 0");
    rows.w = w.detach();
  }
  return rows;
}

void RidgeHead::Data::check_has_rows(const char* method) const {
  TORCH_CHECK_VALUE(moments.weight > 0, kName, ": ", method,
                    " needs rows, of which some weigh more than nothing; call partial_fit first");
}

// Room for so many outputs.
void RidgeHead::Data::start(int64_t count, const at::Device& device) {
  if (!moments.gram.defined()) {
    moments = Moments::none(features, count, bias, device);
  }
  moments.grow(count);
  outputs = count;
}

const RidgeHead::Data::Spectrum& RidgeHead::Data::decomposed() const {
  if (!spectrum) {
    auto [values, vectors] = at::linalg_eigh(moments.gram);
    TORCH_CHECK_LINALG(all_finite(values), kName, ": the features' Gram matrix has no finite eigenvalues");
    spectrum = Spectrum{values.clamp_min_(0), vectors, at::mm(moments.cross, vectors)};
  }
  return *spectrum;
}

// W of the gram and cross products. By Cholesky and one step of refinement, where there is a factor.
at::Tensor RidgeHead::Data::solved(double alpha) const {
  TORCH_CHECK_VALUE(std::isfinite(alpha) && alpha >= 0, kName, ": alpha must be finite and >= 0 (got ", alpha,
                    ")");
  if (!spectrum && alpha > 0) {
    const at::Tensor system = moments.gram.clone();
    system.diagonal().add_(alpha);
    const SpdFactor factor(system.clone());
    constexpr double kSafe = 1e-12;  // below it the eigenvalues tell better what is rounding
    if (factor.least_pivot() > kSafe) {
      const at::Tensor weight = moments.cross.clone();
      factor.solve_(weight);
      const at::Tensor rest = at::sub(moments.cross, at::mm(weight, system));
      factor.solve_(rest);
      return weight.add_(rest);
    }
  }
  const Spectrum& s = decomposed();
  return at::mm(at::mul(s.cross, inverse_of(s.values, alpha)), s.vectors.t());
}

at::Tensor RidgeHead::Data::bias_of(const at::Tensor& weight) const {
  return bias ? at::sub(moments.mean_y, at::mv(weight, moments.mean_f)) : at::Tensor();
}

RidgeHead::RidgeHead(int64_t features, std::optional<int64_t> outputs, bool bias)
    : data_(std::make_unique<Data>()) {
  TORCH_CHECK_VALUE(features >= 1, kName, ": features must be at least 1 (got ", features, ")");
  TORCH_CHECK_VALUE(outputs.value_or(1) >= 1, kName, ": outputs must be at least 1, or not given (got ",
                    outputs.value_or(1), ")");
  data_->features = features;
  data_->outputs = outputs.value_or(0);
  data_->grows = !outputs.has_value();
  data_->bias = bias;
}

RidgeHead::RidgeHead(RidgeHead&&) noexcept = default;
RidgeHead& RidgeHead::operator=(RidgeHead&&) noexcept = default;
RidgeHead::~RidgeHead() = default;

int64_t RidgeHead::features() const { return data_->features; }
int64_t RidgeHead::outputs() const { return data_->outputs; }
bool RidgeHead::has_bias() const { return data_->bias; }
int64_t RidgeHead::rows() const { return data_->moments.rows; }
double RidgeHead::weight() const { return data_->moments.weight; }

void RidgeHead::partial_fit(const at::Tensor& f, const at::Tensor& y, const at::Tensor& sample_weight) {
  const Call call = data_->call(Call::Kind::kChange);
  const Data::Rows rows = data_->checked(f, y, sample_weight, /*adding=*/true);
  if (rows.outputs == 0) {
    return;  // no rows, and no width of targets either
  }
  Moments added = Moments::of(rows.f, rows.y, rows.w, rows.outputs, data_->bias);
  TORCH_CHECK_VALUE(all_finite({added.gram, added.cross}), kName,
                    ": features and y must be small enough for their squares to be finite");
  data_->start(rows.outputs, f.device());
  data_->moments.add(std::move(added));
  data_->spectrum.reset();
}

void RidgeHead::merge(const RidgeHead& other) {
  const Call call = data_->call(Call::Kind::kChange);
  const Data& theirs = *other.data_;
  TORCH_CHECK_VALUE(&theirs != data_.get(), kName, ": a head cannot be merged with itself");
  const Call looking = theirs.call(Call::Kind::kLook);
  TORCH_CHECK_VALUE(theirs.features == data_->features && theirs.bias == data_->bias, kName,
                    ": the heads must have as many features and both a bias or none (got ", data_->features,
                    " and ", theirs.features, ")");
  const int64_t count = std::max(data_->outputs, theirs.outputs);
  TORCH_CHECK_VALUE((data_->outputs == count || data_->grows) && (theirs.outputs == count || theirs.grows),
                    kName, ": the heads must have as many outputs (got ", data_->outputs, " and ",
                    theirs.outputs, ")");
  if (!theirs.moments.gram.defined()) {
    return;
  }
  const at::Device device = theirs.moments.gram.device();
  TORCH_CHECK_VALUE(!data_->moments.gram.defined() || data_->moments.gram.device() == device, kName,
                    ": the heads must be on one device (got ", device, " and another)");
  Moments added = theirs.moments;
  for (at::Tensor* t : {&added.gram, &added.cross, &added.mean_f, &added.mean_y, &added.peak}) {
    *t = t->clone();
  }
  added.grow(count);
  data_->start(count, device);
  data_->moments.add(std::move(added));
  data_->spectrum.reset();
}

void RidgeHead::remove(const at::Tensor& f, const at::Tensor& y, const at::Tensor& sample_weight) {
  const Call call = data_->call(Call::Kind::kChange);
  const Data::Rows rows = data_->checked(f, y, sample_weight, /*adding=*/false);
  Moments taken = Moments::of(rows.f, rows.y, rows.w, data_->outputs, data_->bias);
  TORCH_CHECK_VALUE(
      taken.rows == 0 || (data_->moments.gram.defined() && data_->moments.subtract(std::move(taken))), kName,
      ": the rows to remove must be among those that were added, with the weights that they had");
  data_->spectrum.reset();
}

void RidgeHead::reset() {
  const Call call = data_->call(Call::Kind::kChange);
  data_->moments = {};
  data_->spectrum.reset();
  data_->outputs = data_->grows ? 0 : data_->outputs;
}

std::pair<at::Tensor, at::Tensor> RidgeHead::solve(double alpha) const {
  const Call call = data_->call(Call::Kind::kLook);
  data_->check_has_rows("solve");
  const at::Tensor weight = data_->solved(alpha);
  TORCH_CHECK_LINALG(all_finite(weight), kName, ": the solution is not finite");
  return {weight, data_->bias_of(weight)};
}

std::vector<std::pair<at::Tensor, at::Tensor>> RidgeHead::path(c10::ArrayRef<double> alphas) const {
  const Call call = data_->call(Call::Kind::kLook);
  data_->check_has_rows("path");
  data_->decomposed();
  std::vector<std::pair<at::Tensor, at::Tensor>> path;
  for (const double alpha : alphas) {
    path.push_back(solve(alpha));
  }
  return path;
}

// Without row r the fit's error at r is e_r / (1 - w_r h_r), with e_r that of the whole fit and
// h_r = 1/sum w + (f_r - f0)^T (gram + alpha I)^-1 (f_r - f0): the formula of Sherman and Morrison.
at::Tensor RidgeHead::leave_one_out(c10::ArrayRef<double> alphas, const at::Tensor& f, const at::Tensor& y,
                                    const at::Tensor& sample_weight) const {
  const Call call = data_->call(Call::Kind::kLook);
  const Data& d = *data_;
  d.check_has_rows("leave_one_out");
  const Data::Rows rows = d.checked(f, y, sample_weight, /*adding=*/false);
  TORCH_CHECK_VALUE(f.size(0) > 0, kName, ": leave_one_out needs at least one row (got ", f.sizes(), ")");
  std::vector<at::Tensor> inverses;
  for (const double alpha : alphas) {
    TORCH_CHECK_VALUE(std::isfinite(alpha) && alpha >= 0, kName, ": alphas must be finite and >= 0 (got ",
                      alpha, ")");
    inverses.push_back(inverse_of(d.decomposed().values, alpha));
  }
  const at::TensorOptions options = d.moments.gram.options();
  at::Tensor errors = at::zeros({static_cast<int64_t>(alphas.size())}, options);
  double total = 0;
  const int64_t size = std::max<int64_t>(1, kRotatedEntries / (d.features + d.outputs));
  for (int64_t begin = 0; begin < f.size(0); begin += size) {
    const int64_t count = std::min(size, f.size(0) - begin);
    const at::Tensor w =
        rows.w.defined() ? rows.w.narrow(0, begin, count).to(at::kDouble) : at::ones({count}, options);
    total += w.sum().item<double>();
    const at::Tensor z =
        at::mm(rows.f.narrow(0, begin, count).to(at::kDouble).sub(d.moments.mean_f), d.decomposed().vectors);
    at::Tensor goal = rows.y.narrow(0, begin, count);
    if (!goal.is_floating_point()) {
      goal = at::zeros({count, d.outputs}, options).scatter_(1, goal.unsqueeze(1), 1);
    }
    goal = at::sub(goal.to(at::kDouble), d.moments.mean_y);
    const at::Tensor squares = z.square();
    for (size_t k = 0; k < alphas.size(); ++k) {
      const at::Tensor misses = at::sub(goal, at::mm(at::mul(z, inverses[k]), d.decomposed().cross.t()));
      const at::Tensor leverage =
          at::mv(squares, inverses[k]).add_(d.bias ? 1 / d.moments.weight : 0).mul_(w);
      const at::Tensor scale = at::rsub(leverage, 1).clamp_min_(0);
      errors.select(0, static_cast<int64_t>(k))
          .add_(misses.square().mean(1).div_(scale.square_()).mul_(w).sum());
    }
  }
  TORCH_CHECK_VALUE(total > 0, kName, ": sample_weight must be more than zero somewhere");
  return errors.div_(total);
}

void RidgeHead::write(torch::nn::Linear& linear, double alpha) const {
  const auto [weight, bias] = solve(alpha);
  TORCH_CHECK_VALUE(linear->weight.sizes() == weight.sizes() && linear->bias.defined() == bias.defined(),
                    kName, ": the Linear must have a weight of shape ", weight.sizes(),
                    bias.defined() ? " and a bias (got " : " and no bias (got ", linear->weight.sizes(), ")");
  const c10::NoGradGuard no_grad;
  linear->weight.copy_(weight);
  if (bias.defined()) {
    linear->bias.copy_(bias);
  }
}

SavedState RidgeHead::state() const {
  const Call call = data_->call(Call::Kind::kLook);
  const Moments& m = data_->moments;
  SavedState state;
  state.numbers["ridge_head"] = {static_cast<double>(data_->features), static_cast<double>(data_->outputs),
                                 data_->grows ? 1.0 : 0.0, data_->bias ? 1.0 : 0.0};
  state.numbers["rows"] = {static_cast<double>(m.rows)};
  state.numbers["weight"] = {m.weight};
  if (m.gram.defined()) {
    state.tensors["moments"] = clone_all({m.mean_f, m.mean_y, m.gram, m.cross, m.peak});
  }
  return state;
}

void RidgeHead::load_state(const SavedState& state) {
  const Call call = data_->call(Call::Kind::kChange);
  const StateReader reader(kName, state);
  const std::vector<double> sizes = reader.numbers("ridge_head", 4);
  const auto outputs = static_cast<int64_t>(sizes[1]);
  TORCH_CHECK_VALUE(sizes[0] == static_cast<double>(data_->features) && (sizes[3] != 0) == data_->bias &&
                        (data_->grows || outputs == data_->outputs),
                    kName, ": the state must be that of a head with ", data_->features, " features, ",
                    data_->grows ? "any" : std::to_string(data_->outputs), " outputs and ",
                    data_->bias ? "a bias" : "no bias");
  Moments m;
  m.centred = data_->bias;
  m.rows = reader.count("rows");
  m.weight = reader.number("weight");
  if (reader.has("moments")) {
    const std::vector<at::Tensor>& list = state.tensors.at("moments");
    TORCH_CHECK_VALUE(list.size() == 5 && std::all_of(list.begin(), list.end(),
                                                      [](const at::Tensor& t) {
                                                        return t.defined() && t.scalar_type() == at::kDouble;
                                                      }),
                      kName, ": the state must hold five float64 tensors named 'moments'");
    const Moments like = Moments::none(data_->features, outputs, m.centred, list[0].device());
    const std::vector<at::Tensor> own = {like.mean_f, like.mean_y, like.gram, like.cross, like.peak};
    reader.copy("moments", own);
    m.mean_f = own[0], m.mean_y = own[1], m.gram = own[2], m.cross = own[3], m.peak = own[4];
  }
  TORCH_CHECK_VALUE(std::isfinite(m.weight) && m.weight >= 0 && (m.gram.defined() || m.weight == 0), kName,
                    ": state['weight'] must be finite and >= 0, and 0 without moments (got ", m.weight, ")");
  data_->moments = std::move(m);
  data_->outputs = outputs;
  data_->spectrum.reset();
}

c10::IValue RidgeHead::state_dict() const { return to_dict(state()); }

void RidgeHead::load_state_dict(const c10::IValue& state) {
  load_state(from_dict(as_dict("the state of a RidgeHead", state)));
}

}  // namespace torchbcd
