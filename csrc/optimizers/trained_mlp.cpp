#include "optimizers/trained_mlp.h"

#include <ATen/ops/_unique.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/isin.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "kernels/registry.h"
#include "linalg/reductions.h"
#include "sweeps/layers.h"

namespace torchbcd {
namespace {

constexpr std::string_view kTrainedSlope = "prelu";

std::vector<AffineMap> maps_of(const Mlp& mlp) {
  std::vector<AffineMap> maps;
  for (size_t l = 0; l < mlp.depth(); ++l) {
    maps.push_back({mlp.weights[l], mlp.biases[l], mlp.scale(l), mlp.shift(l), mlp.slope(l)});
  }
  return maps;
}

std::vector<AffineMap> checked_parameters(const char* name, const Mlp& mlp) {
  const std::vector<at::Tensor>& weights = mlp.weights;
  const std::vector<at::Tensor>& biases = mlp.biases;
  TORCH_CHECK_VALUE(!weights.empty(), name, ": the model must have at least one Linear layer");
  TORCH_CHECK_VALUE(weights.size() == biases.size() && weights.size() == mlp.activations.size(), name,
                    ": weights, biases and activations must be as many (got ", weights.size(), ", ",
                    biases.size(), " and ", mlp.activations.size(), ")");
  for (const std::vector<at::Tensor>* list : {&mlp.scales, &mlp.shifts, &mlp.slopes}) {
    TORCH_CHECK_VALUE(list->empty() || list->size() == weights.size(), name,
                      ": scales, shifts and slopes must be as many as weights, or none (got ", list->size(),
                      " and ", weights.size(), ")");
  }
  const at::Tensor& first = weights.front();
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, name,
                   ": parameters must be float32 or float64 (got ", first.scalar_type(), ")");
  std::vector<AffineMap> parameters = maps_of(mlp);
  for (size_t l = 0; l < weights.size(); ++l) {
    for (const at::Tensor& t : tensors_of(parameters[l])) {
      TORCH_CHECK_VALUE(t.options().type_equal(first.options()), name,
                        ": parameters must share one dtype and device (got ", t.scalar_type(), " on ",
                        t.device(), " in layer ", l + 1, ", ", first.scalar_type(), " on ", first.device(),
                        " in layer 1)");
    }
    TORCH_CHECK_VALUE(weights[l].dim() == 2 && (!biases[l].defined() || biases[l].dim() == 1), name,
                      ": layer ", l + 1, " must have a matrix as weight and a vector as bias");
    TORCH_CHECK_VALUE(weights[l].numel() > 0, name, ": layer ", l + 1,
                      " must have at least one input and one output (got a weight of shape ",
                      weights[l].sizes(), ")");
    TORCH_CHECK_VALUE(l == 0 || weights[l].size(1) == weights[l - 1].size(0), name, ": layer ", l + 1,
                      " must take as many inputs as layer ", l, " has outputs, ", weights[l - 1].size(0),
                      " (got ", weights[l].size(1), ")");
    for (const at::Tensor& t : {parameters[l].scale, parameters[l].shift}) {
      TORCH_CHECK_VALUE(!t.defined() || (!mlp.activations[l].normalization.none() && t.dim() == 1 &&
                                         t.size(0) == weights[l].size(0)),
                        name, ": scale and shift of layer ", l + 1, " must be of a normalisation of its ",
                        weights[l].size(0), " outputs (got shape ", t.sizes(), ")");
    }
    const Normalization& norm = mlp.activations[l].normalization;
    TORCH_CHECK_VALUE(norm.eps >= 0 && std::isfinite(norm.eps), name, ": eps of the LayerNorm of layer ",
                      l + 1, " must be finite and >= 0 (got ", norm.eps, ")");
    const bool is_prelu = mlp.activations[l].name == kTrainedSlope;
    TORCH_CHECK_VALUE((norm.none() && !is_prelu) || l + 1 < weights.size(), name,
                      ": the last layer must have no LayerNorm, and no slope that is trained");
    const at::Tensor& slope = parameters[l].slope;
    TORCH_CHECK_VALUE(slope.defined() == is_prelu && (!is_prelu || slope.numel() == 1), name,
                      ": an activation 'prelu' must have one slope, and no other any (layer ", l + 1, ")");
  }
  return parameters;
}

// Of a model put together by hand: a reader's are these by construction.
void check_skips(const char* name, const Mlp& mlp) {
  const auto depth = static_cast<int64_t>(mlp.depth());
  for (const Skip& skip : mlp.skips) {
    TORCH_CHECK_VALUE(skip.from >= -1 && skip.to >= skip.from + 2 && skip.to < depth, name,
                      ": a skip must go from a layer, or -1, to one at least two further on, of ", depth,
                      " layers counted from 0 (got ", skip.from, " to ", skip.to, ")");
    TORCH_CHECK_VALUE(skip.from >= 0 || skip.activated, name, ": a skip of the inputs must be of V");
    const auto alike = [&](const Skip& other) {
      return skip.from == other.from && skip.to == other.to && skip.activated == other.activated;
    };
    TORCH_CHECK_VALUE(std::count_if(mlp.skips.begin(), mlp.skips.end(), alike) == 1, name,
                      ": the same values must not be added twice to layer ", skip.to + 1,
                      "; take one of two Residuals away that begin and end together");
    const at::Tensor& from = mlp.weights[std::max<int64_t>(skip.from, 0)];
    const int64_t width = skip.from < 0 ? from.size(1) : from.size(0);
    TORCH_CHECK_VALUE(width == mlp.weights[skip.to].size(0), name, ": a skip must join equal widths (got ",
                      width, " of layer ", skip.from, " and ", mlp.weights[skip.to].size(0), " of layer ",
                      skip.to, ", counted from 0)");
  }
}

// Whether a parameter is still what the optimizer was made for.
void check_kind(const char* name, const char* which, size_t layer, const at::Tensor& now,
                const at::Tensor& then) {
  TORCH_CHECK_VALUE(now.options().type_equal(then.options()) && now.sizes() == then.sizes(), name, ": the ",
                    which, " of layer ", layer + 1, " was ", then.scalar_type(), " on ", then.device(),
                    " of shape ", then.sizes(), " when the optimizer was made (now ", now.scalar_type(),
                    " on ", now.device(), " of shape ", now.sizes(), "); make a new one");
}

// A parameter's name in errors, and the bytes from its first to its last number.
struct Place {
  const char* which;
  size_t layer;
  const at::Tensor* tensor;
  uintptr_t begin, end;

  std::string name() const { return c10::str("the ", which, " of layer ", layer + 1); }
};

// Where in memory every number of a tensor is.
at::Tensor addresses(const Place& place) {
  const at::Tensor& t = *place.tensor;
  const int64_t size = static_cast<int64_t>(place.end - place.begin) / static_cast<int64_t>(t.element_size());
  return at::arange(size, at::kLong)
      .as_strided(t.sizes(), t.strides())
      .reshape(-1)
      .mul(static_cast<int64_t>(t.element_size()))
      .add_(static_cast<int64_t>(place.begin));
}

// Blocks are solved for one by one, so no number may belong to two parameters, or twice to one.
void check_memory(const char* name, const std::vector<AffineMap>& maps) {
  std::vector<Place> places;
  const auto add = [&](const char* which, size_t layer, const at::Tensor& t) {
    if (!t.defined() || t.numel() == 0) {
      return;
    }
    const auto begin = reinterpret_cast<uintptr_t>(t.const_data_ptr());
    uintptr_t last = 0;
    for (int64_t d = 0; d < t.dim(); ++d) {
      last += static_cast<uintptr_t>((t.size(d) - 1) * t.stride(d));
    }
    places.push_back({which, layer, &t, begin, begin + (last + 1) * t.element_size()});
    if (!t.is_non_overlapping_and_dense()) {
      const at::Tensor found = addresses(places.back());
      TORCH_CHECK_VALUE(std::get<0>(at::_unique(found)).numel() == t.numel(), name, ": ",
                        places.back().name(),
                        " has several entries at one place in memory (as expand() makes); give it memory of "
                        "its own");
    }
  };
  for (size_t l = 0; l < maps.size(); ++l) {
    for (const MapPart& part : kMapParts) {
      add(part.name, l, maps[l].*part.tensor);
    }
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.begin < b.begin; });
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t j = i + 1; j < places.size() && places[j].begin < places[i].end; ++j) {
      TORCH_CHECK_VALUE(!at::isin(addresses(places[i]), addresses(places[j])).any().item<bool>(), name, ": ",
                        std::max(places[i].name(), places[j].name()), " shares memory with ",
                        std::min(places[i].name(), places[j].name()),
                        "; every block is solved for by itself, so each needs memory of its own");
    }
  }
}

}  // namespace

TrainedMlp::TrainedMlp(const char* name, Mlp mlp, const std::string& loss)
    : name(name),
      mlp(std::move(mlp)),
      loss(OutputLoss::of(loss)),
      parameters(checked_parameters(name, this->mlp)) {
  const Call made = call(Call::Kind::kChange);
  check_skips(name, this->mlp);
  for (const Activation& activation : this->mlp.activations) {
    activations.push_back(activation.name == kTrainedSlope
                              ? functors::LeakyReLU()  // of whatever slope a sweep finds
                              : activation_from(activation.name, activation.parameters));
  }
  this->loss.check_outputs(name, parameters.back().weight.size(0));
  check_memory(name, parameters);
  trained = now_trained();
  committed = clone_maps(parameters);
  next = allocate_like(parameters);
}

void TrainedMlp::refuse_skips(const char* what) const {
  TORCH_CHECK_VALUE(mlp.skips.empty(), name, ": ", what, " takes no Residual (one ends with layer ",
                    mlp.skips.front().to + 1, "); RelaxedBCD and BCD with splitting 3 do");
}

bool TrainedMlp::drops() const {
  return std::any_of(mlp.activations.begin(), mlp.activations.end(),
                     [](const Activation& activation) { return activation.dropout > 0; });
}

std::vector<Normalization> TrainedMlp::normalizations() const {
  std::vector<Normalization> all;
  for (const Activation& activation : mlp.activations) {
    all.push_back(activation.normalization);
  }
  return all;
}

bool TrainedMlp::normalizes() const {
  return std::any_of(mlp.activations.begin(), mlp.activations.end(),
                     [](const Activation& activation) { return !activation.normalization.none(); });
}

void TrainedMlp::follow(const std::vector<AffineMap>& now, const std::vector<double>& dropout) {
  for (size_t l = 0; l < depth(); ++l) {
    mlp.weights[l] = now[l].weight;
    mlp.biases[l] = now[l].bias;
    const auto keep = [l](std::vector<at::Tensor>& list, const at::Tensor& t) {
      if (!list.empty()) {
        list[l] = t;
      }
    };
    keep(mlp.scales, now[l].scale);
    keep(mlp.shifts, now[l].shift);
    keep(mlp.slopes, now[l].slope);
    mlp.activations[l].dropout = dropout.empty() ? 0 : dropout[l];
    parameters[l] = now[l];
  }
}

std::vector<Trained> TrainedMlp::now_trained() const {
  std::vector<Trained> now;
  bool any = false;
  for (const AffineMap& map : parameters) {
    const auto is_trained = [&](const at::Tensor& t) {
      return t.defined() && (!mlp.can_be_frozen || t.requires_grad());
    };
    now.emplace_back();
    for (const MapPart& part : kMapParts) {
      now.back().*part.trained = is_trained(map.*part.tensor);
    }
    any = any || now.back().any();
  }
  TORCH_CHECK_VALUE(any, name, ": at least one parameter must require gradients; all are frozen");
  return now;
}

bool TrainedMlp::sync() {
  if (reread) {
    const Mlp now = reread();
    std::vector<double> dropout;
    for (const Activation& activation : now.activations) {
      dropout.push_back(activation.dropout);
    }
    follow(maps_of(now), dropout);
  }
  for (size_t l = 0; l < depth(); ++l) {
    for (const MapPart& part : kMapParts) {
      if ((committed[l].*part.tensor).defined()) {
        check_kind(name, part.name, l, parameters[l].*part.tensor, committed[l].*part.tensor);
      }
    }
  }
  check_memory(name, parameters);
  std::vector<Trained> training = now_trained();
  const std::vector<at::Tensor> now = tensors_of(parameters);
  const bool same = all_equal(now, tensors_of(committed));
  if ((!same || unchecked) && !all_finite(now)) {
    for (size_t l = 0; l < depth(); ++l) {
      TORCH_CHECK_VALUE(all_finite(tensors_of(parameters[l])), name, ": the parameters of layer ", l + 1,
                        " must be finite (got NaN or infinite entries)");
    }
  }
  unchecked = false;
  if (!same) {
    copy_maps(parameters, committed);
  }
  const bool changed = !same || training != trained;
  trained = std::move(training);
  return changed;
}

void TrainedMlp::check_next() const {
  if (!all_finite(tensors_of(next))) {
    for (size_t l = 0; l < depth(); ++l) {
      TORCH_CHECK_LINALG(all_finite(tensors_of(next[l])), block_name(name, depth(), "W", l),
                         ": the update is not finite");
    }
  }
}

void TrainedMlp::commit() {
  const auto write = [this](const std::vector<AffineMap>& values) {
    for (size_t l = 0; l < depth(); ++l) {
      std::optional<c10::InferenceMode> as_they_are;
      if (parameters[l].weight.is_inference()) {
        as_they_are.emplace();
      }
      for (const MapPart& part : kMapParts) {
        if (trained[l].*part.trained) {
          (parameters[l].*part.tensor).copy_(values[l].*part.tensor);
        }
      }
    }
  };
  try {
    write(next);
  } catch (...) {
    // Past Python's dispatch modes: what failed may have been one, and its error is still pending.
    const c10::impl::ExcludeDispatchKeyGuard without_modes(c10::python_ks);
    write(committed);
    throw;
  }
  std::swap(committed, next);
}

}  // namespace torchbcd
