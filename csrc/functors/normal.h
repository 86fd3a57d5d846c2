// The distribution function of a standard normal variable, without a branch or a table
// (functors/elementary.h).
#pragma once

#include "functors/elementary.h"

namespace torchbcd::functors {

// e^(x^2/2) (1 - Phi(x)) for x >= 0, to 1.5 units in the last place: a polynomial in t = (x - 4)/(x + 4), by
// x + 1, to which it tends to be in proportion. The coefficients are those of the interpolation in
// Chebyshev's points, computed in 50 digits.
TORCHBCD_HOST_DEVICE double scaled_normal_tail(double x) {
  const double t = (x - 4) / (x + 4);
  double p = 1.78735452218526567e-10;
  p = p * t - 6.76326721056245388e-10;
  p = p * t - 2.61803487312554461e-9;
  p = p * t + 5.47470863204868944e-9;
  p = p * t + 2.02576671368615866e-8;
  p = p * t - 1.79321219166424145e-8;
  p = p * t - 1.14468507127580798e-7;
  p = p * t - 1.23715336699219701e-9;
  p = p * t + 5.5483404622077898e-7;
  p = p * t + 4.06717301251544479e-7;
  p = p * t - 2.61441017065961507e-6;
  p = p * t - 3.43337221685327538e-6;
  p = p * t + 0.0000136273952853526749;
  p = p * t + 0.0000212504468562083747;
  p = p * t - 0.000087853303947977457;
  p = p * t - 0.0000944303394415222288;
  p = p * t + 0.000694897121907316619;
  p = p * t - 0.000285623086809394133;
  p = p * t - 0.00500237859251149427;
  p = p * t + 0.0179360974788685885;
  p = p * t - 0.0321978374280220249;
  p = p * t + 0.0286003640535774896;
  p = p * t + 0.0139996347244243327;
  p = p * t - 0.096703477326526068;
  p = p * t + 0.472053206509844684;
  return p / (x + 1);
}

// The same in float32.
TORCHBCD_HOST_DEVICE float scaled_normal_tail(float x) {
  const float t = (x - 4) / (x + 4);
  float p = -5.809123526e-5f;
  p = p * t - 4.999051445e-5f;
  p = p * t + 0.0006649886921f;
  p = p * t - 0.0003258309987f;
  p = p * t - 0.00498771425f;
  p = p * t + 0.01795281748f;
  p = p * t - 0.03220116289f;
  p = p * t + 0.02859746787f;
  p = p * t + 0.01399991367f;
  p = p * t - 0.09670333541f;
  p = p * t + 0.4720532027f;
  return p / (x + 1);
}

// Phi(u), and the density phi(u).
template <typename C>
struct Normal {
  C below, density;

  TORCHBCD_HOST_DEVICE explicit Normal(C u) {
    const C magnitude = u < 0 ? -u : u;
    const C exponential = exp_nonpositive(C(-0.5) * u * u);
    const C tail = exponential * scaled_normal_tail(magnitude);
    below = u < 0 ? tail : 1 - tail;
    density = exponential * C(0.3989422804014327);
  }
};

}  // namespace torchbcd::functors
