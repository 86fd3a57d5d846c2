// The Wright omega function, w(x) > 0 with w + log(w) = x, by the fourth-order iteration of Fritsch, Shafer
// and Crowley (1973).
#pragma once

#include <cmath>

#include "functors/elementary.h"

namespace torchbcd::functors {

// A step, where `error` is x - w - log(w).
template <typename C>
TORCHBCD_HOST_DEVICE C wright_step(C w, C error) {
  const C p = w + 1;
  const C q = 2 * p * (p + C(2.0 / 3.0) * error);
  return w * (1 + error / p * (q - error) / (q - 2 * error));
}

// To 10 %, without a branch; for x >= -80, or -700 in float64.
template <typename C>
TORCHBCD_HOST_DEVICE C wright_guess(C x) {
  const C e = exp_nonpositive(x < 0 ? x : C(0));
  const C far = x > 2 ? x : C(2);
  const C l = log_positive(far);
  const C large = far - l + l / far;
  const C middle = C(0.5671432904097838) + x * (C(0.36189625663488876) + x * C(0.07367780517637289));
  const C above = x < 2 ? middle : large;
  return x < -1 ? e / (1 + e) : above;
}

TORCHBCD_HOST_DEVICE_CALL double wright_omega(double x) {
  if (x < -45) {
    return std::exp(x);  // w = e^x (1 - e^x + ...)
  }
  double w = wright_guess(x);
  for (int step = 0; step < 3; ++step) {
    w = wright_step(w, x - w - std::log(w));
  }
  return w;
}

}  // namespace torchbcd::functors
