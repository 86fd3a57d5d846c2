// The prox of the cross-entropy in lanes: the formulas of an entry and of a row's one unknown s of
// cross_entropy.h, for loops without a branch. With kappa = T / gamma, x_c = b_c + t_c / gamma, w_c = kappa
// e^(v_c - s) and the shift h = s - log kappa,
//
//     w_c + log w_c = x_c - h,   v_c = x_c - w_c = h + log w_c,   P(h) = sum_c w_c = kappa.
//
// For a single class P + log P falls along a line, and it is nearly one in general: its root is found by
// Halley's iteration on g = P + log P - kappa - log kappa, with
//
//     P' = -D, D = sum_c f_c, f_c = w_c / (1 + w_c),   P'' = sum_c w_c / (1 + w_c)^3 = sum_c f_c (1 - f_c)^2.
//
// A step of length d leaves an error of the size of d^3, in h and, where w_c follows by its Taylor series, in
// v_c.
#pragma once

#include "functors/trial.h"
#include "functors/wright_omega.h"

namespace torchbcd::functors {

// Where x - h is below, w is nothing to a sum.
inline constexpr float kNoEntry = -80;

// Whether float's range is enough for all there is in between.
TORCHBCD_HOST_DEVICE bool cross_entropy_in_range(double kappa) { return kappa >= 1e-8 && kappa <= 1e15; }

// delta of w (1 + delta), a step of Fritsch, Shafer and Crowley's, by one division.
template <typename C>
TORCHBCD_HOST_DEVICE C wright_change(C w, C error) {
  const C p = w + 1;
  const C q = 2 * p * (p + C(2.0 / 3.0) * error);
  return error * (q - error) / (p * (q - 2 * error));
}

// w to 1e-4, given x - h.
TORCHBCD_HOST_DEVICE float cross_entropy_entry(float difference) {
  const float x = difference > kNoEntry ? difference : kNoEntry;
  const float guess = wright_guess(x);
  return guess + guess * wright_change(guess, x - guess - log_positive(guess));
}

// w where e^(x - h) = y is at most kSmallEntry: W(y) by a polynomial in y, to 1e-8 but for its rounding.
inline constexpr float kSmallEntry = 0.25f;
TORCHBCD_HOST_DEVICE float cross_entropy_small_entry(float y) {
  float p = -8.080195640f;
  p = p * y + 11.815818462f;
  p = p * y - 8.857505268f;
  p = p * y + 5.009223190f;
  p = p * y - 2.655045905f;
  p = p * y + 1.499657954f;
  p = p * y - 0.999996102f;
  p = p * y + 1;
  return p * y;
}

// An entry in float64, from a w to 1e-4 of it.
struct CrossEntropyEntry {
  double w, v;
  double fall;  // f
  double off;   // how far the given w was from its equation, relative to what moves it

  TORCHBCD_HOST_DEVICE CrossEntropyEntry(double x, double shift, double nearby) {
    const double far = x - shift;
    const double difference = far > kNoEntry ? far : kNoEntry;
    const double log = log_positive(nearby);
    const double error = difference - nearby - log;
    const double delta = wright_change(nearby, error);
    w = nearby + nearby * delta;
    const double by_log = shift + (log + delta * (1 - delta * (0.5 - delta * (1.0 / 3))));
    v = w > 1 ? by_log : x - w;  // two forms of one number; the exact one of them
    fall = w / (1 + w);
    off = std::fabs(error) / (1 + nearby);
  }
};

// w in float64 from one to 1e-6 of it, given 1 / (1 + w) in float; less than that where that was far too
// large.
TORCHBCD_HOST_DEVICE double cross_entropy_refined(double difference, float nearby, float inverse) {
  const double from = nearby;
  const double slope = inverse;
  const double error = difference - from - log_positive(from);
  const double change = (error > -1 ? error : -1.0) * slope;
  return from + from * (change + 0.5 * slope * (change * change));
}

// v where h moves by d, small.
template <typename Fall>
TORCHBCD_HOST_DEVICE double cross_entropy_state(double v, Fall fall, Fall d) {
  const Fall rest = 1 - fall;
  return v + static_cast<double>(fall * d * (1 - Fall(0.5) * d * (rest * rest)));
}

// e^(x - x_2), of all but the greatest x; no less than what is nothing to a sum, so that no product with it
// is too small for a number's usual form, which is slow. A NaN stays one.
TORCHBCD_HOST_DEVICE float cross_entropy_power(float below) {
  const float bounded = below < -40 ? -40.0f : below;
  return exp_nonpositive(bounded > 0 ? 0.0f : bounded);
}

// What a row's entries come to: P, D and P''.
struct CrossEntropySums {
  double w, fall, bend;
};

// The step of h, where not finite or too far Newton's.
TORCHBCD_HOST_DEVICE double cross_entropy_step(const CrossEntropySums& sums, double kappa) {
  const double inverse = 1 / sums.w;
  const double value = (sums.w - kappa) + log_positive(sums.w / kappa);
  const double slope = -(1 + inverse) * sums.fall;
  const double ratio = sums.fall * inverse;
  const double bend = (1 + inverse) * sums.bend - ratio * ratio;
  const HalleyStep<double> halley(value, slope, bend);
  return halley.divisor > 0.3 * slope * slope ? halley.length : -value / slope;
}

// h to start from. The entry with the greatest x, x_1, stands by itself; the others for n of one size that
// have their sums S of e^(x - x_2) and Q of its square, where x_2 is the second greatest x: n = S^2 / Q, with
// x = x_2 + log(Q / S) = r. With q = w_1 / kappa and q = 1 / (1 + e^z) their equations come to
//
//     z = beta + K / (1 + e^z),   K = kappa (1 + 1/n),   -beta = x_1 - x_2 - log S + kappa/n.
//
// Halley's iteration for z, in the bracket [beta, beta + K].
TORCHBCD_HOST_DEVICE double cross_entropy_start(double first, double second, float sum, float squares,
                                                double kappa) {
  const float inverse_n = squares / (sum * sum);
  const float k = static_cast<float>(kappa);
  const float total = k + k * inverse_n;
  const float beta = static_cast<float>(second - first) + log_positive(sum) - k * inverse_n;
  const auto share = [](float z) {
    const float e = exp_nonpositive(-std::fabs(z));
    return (z > 0 ? e : 1.0f) / (1 + e);  // 1 / (1 + e^z)
  };
  // Where the bracket is long, z is nothing beside beta; put in on the left, twice. Else a Newton step from
  // beta.
  const float most = total > 4 ? total - 1 : 3.0f;
  const auto inverse = [total, most](float left) {
    const float inside = left > 1 ? (left < most ? left : most) : 1.0f;
    return log_positive((total > 4 ? total : 4.0f) / inside - 1);
  };
  const float s = share(beta);
  const float tangent = beta + total * s / (1 + total * s * (1 - s));
  const float guess = total > 4 ? inverse(inverse(-beta) - beta) : tangent;
  const float low = beta, high = beta + total;
  const float above = guess > low ? guess : low;
  Bracketed<float> search = {above < high ? above : high, low, high};
  TORCHBCD_UNROLL
  for (int j = 0; j < 3; ++j) {
    const float p = share(search.u);
    const float falls = total * p * (1 - p);
    const float value = (search.u - beta) - total * p;
    const HalleyStep<float> step(value, 1 + falls, falls * (2 * p - 1));
    search = search.moved(value, step.length, /*trusted=*/1);
  }
  const float by_first = k * share(search.u);
  const float by_rest = k * share(-search.u) * inverse_n;
  const double of_rest = second + static_cast<double>(log_positive(squares / sum));
  const float less = by_first < by_rest ? by_first : by_rest;
  const float away = less > 1e-30f ? less + log_positive(less) : -69.0f;
  return (by_first < by_rest ? first : of_rest) - away;
}

}  // namespace torchbcd::functors
