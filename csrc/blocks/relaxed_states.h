// The block of a hidden layer's (U, V) on V = sigma(U), as RelaxedBCD has it: a direction of descent, a
// length along it by an exact line search of the linearised problem, and a step that is checked.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "blocks/state_map.h"
#include "linalg/reductions.h"

namespace torchbcd {

/// A layer further on whose products have T added, with T the states V or U themselves, or their sum: a skip
/// connection.
struct SkipReader {
  size_t layer;
  at::Tensor residual;  // R' of that layer
  at::Tensor wanted;    // R' before the branch took its part of it, which the direction follows
  double ratio;         // its penalty, relative to that of the layer behind the states
  bool reads_u, reads_v;
};

/// What the block of (U, V)_{l-1} minimises along a ray, |R - (map(U + d) - V) W_l^T|^2 + ratio |S + d|^2,
/// with S = U - P, and ratio' |R' - (T(U + d) - T)|^2 for each skip that begins here.
struct StateProblem {
  const StateMap& map;
  at::Tensor weight;
  double ratio;            // rho_{l-1} / rho_l
  double scale;            // a power of two that the gradient is multiplied by
  at::Tensor scaled;       // the weight times that
  at::Tensor u, v, slack;  // slack undefined: zero
  at::Tensor residual;     // R
  at::Tensor direction;
  at::Tensor length;   // along the direction: one number, float64
  at::Tensor product;  // scratch like R; for has_line the direction's, J z W_l^T
  bool has_line;       // whether the product tells the value along the ray
  std::vector<SkipReader> skips = {};

  double keep() const { return slack.defined() ? 1 : 0; }
  const at::Tensor& slack_or_any() const { return slack.defined() ? slack : direction; }
};

struct StateMoved {
  at::Tensor slack, change, slack_sums, sums;   // sums: of the objective above
  std::vector<at::Tensor> skip_residuals = {};  // R' - (T(U + d) - T)
};

/// How a direction and its length are found.
struct StateStep {
  int64_t steps;        // of conjugate gradients
  double omega;         // over-relaxation
  double cap;           // of the states' move, relative to their norm; 0: none
  int64_t stride;       // the length is measured on every `stride`-th row
  double input_square;  // |V|^2, before
};

/// What the gradient R W of the states is multiplied by, so that float32 holds it and its image by W^T: 1,
/// or, where the rows of W are of unusual size, a power of two near 1/|w|^2, which changes no digit. `square`
/// is |w|^2, the mean over rows.
double gradient_scale(double square);

/// The rows' sums of squares of what the skips add to the problem, undefined where there are none, at
/// residuals R'.
at::Tensor skip_sums(const std::vector<SkipReader>& skips, const std::vector<at::Tensor>& residuals);

/// Sets the direction z, and the length: `omega` times the minimiser of the problem with the map linearised.
/// Leaves J z in `image`.
void set_direction(StateProblem& problem, const StateStep& step, const at::Tensor& image,
                   const Totals& totals);

/// The direction where sigma is a sign, whose derivative says nothing: row by row the unit whose flip lowers
/// the problem most, then the best one given that, as far as an eighth of the units. A flipped unit goes
/// across zero, by `omega` times the mean |u|, so that the layer before is drawn there. `population`: what
/// the rows of all processes count.
void set_flips(StateProblem& problem, double omega, double population, const Totals& totals);

/// The step, whatever it does to the objective, where all rows count one.
void move_unchecked(const StateProblem& problem, StateMoved& moved);

/// A step that kinks or curvature make raise the objective, whose sums over rows are `start`, is halved, and
/// halved again, and at last dropped. Returns whether it was. Sums are weighed here, and in `start` already.
/// `meanwhile` is called for each step that is tried, while the processes sum up what decides; the last call
/// is for the step that stands.
bool move_checked(StateProblem& problem, const at::Tensor& start, StateMoved& moved, const Totals& totals,
                  const std::function<void()>& meanwhile);

}  // namespace torchbcd
