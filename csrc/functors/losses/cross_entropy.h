// Softmax cross-entropy of a row, l(v; t) = -sum_c t_c log softmax(v)_c for targets t >= 0, and its prox
// argmin over v of weight l(v; t) + gamma/2 |v - b|^2 + sum_c r(v_c); below, t stands for weight times t.
//
// With T = sum_c t_c and s = log sum_c e^(v_c), stationarity is
//
//     0 in T e^(v_c - s) - t_c + gamma (v_c - b_c) + dr(v_c)       for every c:
//
// given s, each v_c is the minimiser of a convex function of one variable, by the Wright omega function, and
// v_c - s falls as s rises. So s is the one root of the rising function s - log sum_c e^(v_c(s)), found by a
// bracketed Newton iteration. No matrix, O(C) a step, for any number of classes C.
#pragma once

#include <cstdint>

#include "functors/regularizers.h"
#include "functors/traits.h"
#include "functors/wright_omega.h"

namespace torchbcd::functors {

// One row's problem. Entry c of targets and centre is `stride` numbers after entry c - 1.
template <typename T>
struct CrossEntropyRow {
  const T* target;
  const T* centre;
  T* out;
  int64_t target_stride, centre_stride, out_stride;
  int64_t classes;
  double weight;  // of the loss
  double gamma;
  Regularizer regularizer;

  TORCHBCD_HOST_DEVICE double t(int64_t c) const {
    return weight * static_cast<double>(target[c * target_stride]);
  }
  TORCHBCD_HOST_DEVICE double b(int64_t c) const { return static_cast<double>(centre[c * centre_stride]); }

  struct Entry {
    double v;
    double slope;  // dv/ds
  };

  // argmin over v of total e^(v - s) - t v + gamma/2 (v - b)^2 + r(v), where total is T above.
  TORCHBCD_HOST_DEVICE_CALL Entry entry(int64_t c, double s, double total) const {
    double slope = 0;
    const double tc = t(c);
    const auto minimise = [&slope, tc, s, total](double curvature, double centre) {
      const double kappa = total / curvature;
      const double r = centre + tc / curvature;
      const double w = kappa > 0 ? wright_omega(r - s + std::log(kappa)) : 0;
      slope = w / (1 + w);
      return w > 1 ? s + std::log(w / kappa) : r - w;  // two forms of one number; the exact one of them
    };
    const double v = regularizer_with_loss(regularizer, gamma, b(c), minimise);
    const bool held = (regularizer.l1 > 0 && v == 0) || v == regularizer.low || v == regularizer.high;
    return {v, held ? 0.0 : slope};
  }

  TORCHBCD_HOST_DEVICE double log_sum_exp_of_centre() const {
    double greatest = b(0);
    for (int64_t c = 1; c < classes; ++c) {
      greatest = b(c) > greatest ? b(c) : greatest;
    }
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) {
      sum += std::exp(b(c) - greatest);
    }
    return greatest + std::log(sum);
  }

  TORCHBCD_HOST_DEVICE_CALL void solve() const {
    double total = 0;
    bool finite = true;
    for (int64_t c = 0; c < classes; ++c) {
      total += t(c);
      finite = finite && std::isfinite(b(c));
    }
    if (!finite || !std::isfinite(total)) {
      for (int64_t c = 0; c < classes; ++c) {
        out[c * out_stride] = static_cast<T>(b(c) + t(c)) * static_cast<T>(NAN);
      }
      return;
    }
    const CrossEntropyRow row = *this;
    // log of 1 / sum_c e^(v_c(s) - s), which rises through zero at the solution.
    const auto excess = [&row, total](double s) {
      double sum = 0;
      double weighted = 0;
      for (int64_t c = 0; c < row.classes; ++c) {
        const Entry at = row.entry(c, s, total);
        const double p = std::exp(at.v - s);
        sum += p;
        weighted += p * (1 - at.slope);
      }
      return ValueAndSlope{-std::log(sum), weighted / sum};
    };
    const double guess = log_sum_exp_of_centre();
    double low = guess;
    double high = guess;
    double step = 1;
    for (int k = 0; k < 60 && excess(low).value > 0; ++k, step *= 2) {
      high = low;
      low -= step;
    }
    if (low == guess) {
      step = 1;
      for (int k = 0; k < 60 && excess(high).value < 0; ++k, step *= 2) {
        low = high;
        high += step;
      }
    }
    const double s = low < high ? bracketed_root(excess, low, high, low, /*last_newton_step=*/4e-16) : low;
    for (int64_t c = 0; c < classes; ++c) {
      out[c * out_stride] = static_cast<T>(entry(c, s, total).v);
    }
  }

  // weight l(centre; target), for the objective.
  TORCHBCD_HOST_DEVICE double value() const {
    const double s = log_sum_exp_of_centre();
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) {
      sum += t(c) == 0 ? 0 : t(c) * (s - b(c));
    }
    return sum;
  }

  // weight times the gradient of l(centre; target), T softmax(centre) - t.
  TORCHBCD_HOST_DEVICE void gradient() const {
    const double s = log_sum_exp_of_centre();
    const double total = sum_of_targets();
    for (int64_t c = 0; c < classes; ++c) {
      out[c * out_stride] = static_cast<T>(total * std::exp(b(c) - s) - t(c));
    }
  }

  // A Lipschitz constant of that gradient: the Hessian is T (diag(p) - p p^T), p the softmax.
  TORCHBCD_HOST_DEVICE double gradient_lipschitz() const { return sum_of_targets() / 2; }

 private:
  TORCHBCD_HOST_DEVICE double sum_of_targets() const {
    double total = 0;
    for (int64_t c = 0; c < classes; ++c) {
      total += t(c);
    }
    return total;
  }
};

struct CrossEntropyLoss : LossTraits {
  static constexpr const char* name = "cross_entropy";
  static constexpr bool couples_row = true;
  static constexpr bool softmax = true;
  static constexpr bool outputs_are_targets = false;
  static constexpr TargetRange targets = {0, kInfinity, "must hold probabilities >= 0"};
  static constexpr ParameterCount parameters = {
      .fewest = 1,
      .most = std::numeric_limits<int>::max(),
      .must = "loss 'cross_entropy' takes its label smoothing and, after it, a weight for each class"};

  // They change targets alone (kernels/registry.h), and nothing here.
  const char* set(const double* values, int count) {
    if (!(values[0] >= 0 && values[0] <= 1)) {
      return "label_smoothing must be between 0 and 1";
    }
    double greatest = count > 1 ? 0 : 1;
    for (int k = 1; k < count; ++k) {
      if (!(values[k] >= 0 && values[k] < kInfinity)) {
        return "weights of classes must be finite and >= 0";
      }
      greatest = values[k] > greatest ? values[k] : greatest;
    }
    return greatest > 0 ? nullptr : "the weight of one class at least must be > 0";
  }

  template <typename T>
  using Row = CrossEntropyRow<T>;
};

}  // namespace torchbcd::functors
