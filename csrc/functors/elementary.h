// exp and log without a branch or a table, which a compiler turns into vector instructions; those of <cmath>
// are calls. Written in plain multiplications and additions, so that every instruction set gives the same
// bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "functors/host_device.h"

namespace torchbcd::functors {

template <typename To, typename From>
TORCHBCD_HOST_DEVICE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// x <= 0 as n log 2 + r, |r| <= log(2)/2, with 2^n and e^r - 1, by its Taylor polynomial. n is rounded by
// adding 1.5 * 2^52, whose low bits then hold it and go into the exponent's. x is -708 at the least, -87 in
// float32.
template <typename C>
struct ReducedExponential {
  C power, rest;
};

TORCHBCD_HOST_DEVICE ReducedExponential<double> reduced_exponential(double x) {
  constexpr double kRound = 6755399441055744.0;
  x = x < -708 ? -708.0 : x;
  const double rounded = x * 1.4426950408889634 + kRound;
  const double n = rounded - kRound;
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  return {bits_as<double>((bits_as<uint64_t>(rounded) << 52) + 0x3ff0000000000000ULL), r + (p * r) * r};
}

TORCHBCD_HOST_DEVICE ReducedExponential<float> reduced_exponential(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  x = x < -87.0f ? -87.0f : x;
  const float rounded = x * 1.44269504f + kRound;
  const float n = rounded - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  return {bits_as<float>((bits_as<uint32_t>(rounded) << 23) + 0x3f800000U), r + (p * r) * r};
}

// e^x for x <= 0, to 1.5 units in the last place; as at the least x below it.
template <typename C>
TORCHBCD_HOST_DEVICE C exp_nonpositive(C x) {
  const ReducedExponential<C> e = reduced_exponential(x);
  return e.power * (1 + e.rest);
}

// e^x - 1 for x <= 0, to two units in the last place of it.
template <typename C>
TORCHBCD_HOST_DEVICE C expm1_nonpositive(C x) {
  const ReducedExponential<C> e = reduced_exponential(x);
  return e.power * e.rest + (e.power - 1);
}

// log x for a normal x > 0, to 2 units in the last place of max(1, |log x|). x = 2^n m with m in [sqrt(1/2),
// sqrt(2)), and log m = 2 artanh(s), s = (m - 1)/(m + 1).
TORCHBCD_HOST_DEVICE double log_positive(double x) {
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcdULL;
  constexpr double kRound = 6755399441055744.0;  // its low bits hold an integer
  const uint64_t bits = bits_as<uint64_t>(x);
  const uint64_t above = bits - kRootHalf;
  const uint64_t biased = (above + (uint64_t{1023} << 52)) >> 52;
  const double n = bits_as<double>(biased + 0x4338000000000000ULL) - (kRound + 1023);
  const double m = bits_as<double>(bits - (above & 0xfff0000000000000ULL));
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double p = 2.0 / 19;
  p = p * z + 2.0 / 17;
  p = p * z + 2.0 / 15;
  p = p * z + 2.0 / 13;
  p = p * z + 2.0 / 11;
  p = p * z + 2.0 / 9;
  p = p * z + 2.0 / 7;
  p = p * z + 2.0 / 5;
  p = p * z + 2.0 / 3;
  return n * 0.6931471805599453 + (s * (p * z) + 2 * s);
}

// The same in float32.
TORCHBCD_HOST_DEVICE float log_positive(float x) {
  constexpr uint32_t kRootHalf = 0x3f3504f3U;
  constexpr float kRound = 12582912.0f;
  const uint32_t bits = bits_as<uint32_t>(x);
  const uint32_t above = bits - kRootHalf;
  const uint32_t biased = (above + (127U << 23)) >> 23;
  const float n = bits_as<float>(biased + 0x4b400000U) - (kRound + 127);
  const float m = bits_as<float>(bits - (above & 0xff800000U));
  const float s = (m - 1) / (m + 1);
  const float z = s * s;
  float p = 2.0f / 9;
  p = p * z + 2.0f / 7;
  p = p * z + 2.0f / 5;
  p = p * z + 2.0f / 3;
  return n * 0.693147181f + (s * (p * z) + 2 * s);
}

// log(1 + x) for 0 <= x <= 1, to a few units in the last place of it: what 1 + x drops of x counts by itself.
template <typename C>
TORCHBCD_HOST_DEVICE C log1p_unit(C x) {
  const C w = 1 + x;
  return log_positive(w) + (x - (w - 1)) / w;
}

// 1 / (1 + e^-x), and what is missing of 1, neither of which loses digits; and e^-|x|.
template <typename C>
struct Logistic {
  C value, rest, exponential;

  TORCHBCD_HOST_DEVICE explicit Logistic(C x) : exponential(exp_nonpositive(x < 0 ? x : -x)) {
    const C large = 1 / (1 + exponential);
    const C small = exponential * large;
    value = x < 0 ? small : large;
    rest = x < 0 ? large : small;
  }
};

}  // namespace torchbcd::functors
