// The prox of the cross-entropy in lanes: the formulas of an entry and of a step of the root s of
// cross_entropy.h, for a loop over a row's classes without a branch. With kappa = T / gamma and w_c = kappa
// e^(v_c - s),
//
//     w_c + log w_c = x_c - s,   x_c = b_c + t_c / gamma + log kappa,   P(s) = sum_c w_c = kappa.
//
// For a single class P + log P falls along a line, and it is nearly one in general: its Newton iteration,
// s += (P + log P - kappa - log kappa) / ((1 + 1/P) D) with D = -P' = sum_c w_c / (1 + w_c), converges from
// s = log(sum_c e^(x_c)) - log kappa, where P <= kappa since w < e^(x - s). D changes by no more than a
// factor of e^(step), so that a last step d leaves an error of d^2.
#pragma once

#include "functors/wright_omega.h"

namespace torchbcd::functors {

template <typename C>
struct CrossEntropyLanes {
  static constexpr C kLeast = sizeof(C) == 4 ? C(-80) : C(-700);  // below, w is nothing to a sum

  struct Entry {
    C w;
    C fall;  // -dw/ds
    C off;  // how far w was from its equation before the step, relative to what moves it: the step leaves its
            // fourth power
  };

  // The entry for x - s by one step, from the last one's w, or from a guess where that is too far off.
  TORCHBCD_HOST_DEVICE static Entry at(C difference, C last) {
    const C x = difference > kLeast ? difference : kLeast;
    const C error_of_last = x - last - log_positive(last);
    const C guess = wright_guess(x);
    const C w = std::fabs(error_of_last) < C(0.5) ? last : guess;
    const C error = std::fabs(error_of_last) < C(0.5) ? error_of_last : x - guess - log_positive(guess);
    const C stepped = wright_step(w, error);
    return {stepped, stepped / (1 + stepped), std::fabs(error) / (1 + w)};
  }
};

// v_c at s + d, given that w_c at s, d small, and b_c + t_c / gamma: by the one of two forms that is exact.
TORCHBCD_HOST_DEVICE double cross_entropy_state(double w, double fall, double s, double d, double log_kappa,
                                                double centre) {
  const double by_log = s + log_positive(w) - log_kappa;
  return (w > 1 ? by_log : centre - w) + fall * d;
}

}  // namespace torchbcd::functors
