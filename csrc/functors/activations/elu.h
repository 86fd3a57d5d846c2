// sigma(u) = scale u for u > 0 and scale alpha (e^(rate u) - 1) below: ELU (scale and rate 1), CELU (scale 1,
// rate 1/alpha) and SELU (rate 1) in one, as ATen's elu has them.
#pragma once

#include <vector>

#include "functors/smooth_prox.h"

namespace torchbcd::functors {

struct ELU : SmoothActivation<ELU> {
  static constexpr const char* name = "elu";
  static constexpr bool has_preimages = true;
  static constexpr ParameterCount parameters = {
      .fewest = 1,
      .most = 3,
      .must =
          "activation 'elu' takes up to three parameters, alpha, the scale and the rate of its exponential"};

  double alpha = 1;
  double scale = 1;
  double rate = 1;

  const char* set(const double* values, int count) {
    alpha = values[0];
    scale = count > 1 ? values[1] : 1;
    rate = count > 2 ? values[2] : 1;
    const bool finite = std::isfinite(alpha) && std::isfinite(scale) && std::isfinite(rate);
    return finite && scale > 0 && rate > 0 ? nullptr
                                           : "alpha must be finite, scale and rate finite and positive";
  }

  TORCHBCD_HOST_DEVICE bool monotone() const { return alpha >= 0; }

  std::vector<double> kinks() const {
    return std::fabs(alpha * rate - 1) <= 1e-12 ? std::vector<double>{} : std::vector<double>{0};
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T value(T u) const {
    const T below =
        static_cast<T>(scale * alpha) * expm1_nonpositive(static_cast<T>(rate) * (u > 0 ? T(0) : u));
    return u > 0 ? static_cast<T>(scale) * u : below;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE T derivative(T u) const {
    const T below =
        static_cast<T>(scale * alpha * rate) * exp_nonpositive(static_cast<T>(rate) * (u > 0 ? T(0) : u));
    return u > 0 ? static_cast<T>(scale) : below;
  }

  template <typename T>
  TORCHBCD_HOST_DEVICE Pair<T> slopes(T u) const {
    const T slope = derivative(u);
    return {slope, u == 0 ? static_cast<T>(scale) : slope};
  }

  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u, bool right) const {
    const C s = static_cast<C>(scale);
    const C r = static_cast<C>(rate);
    const C c = static_cast<C>(scale * alpha);
    const C m = expm1_nonpositive(r * (u > 0 ? C(0) : u));
    const C slope = c * r * (1 + m);
    return {u > 0 ? s * u : c * m, right ? s : slope, right ? C(0) : r * slope};
  }
  template <typename C>
  TORCHBCD_HOST_DEVICE Jet<C> jet(C u) const {
    return jet(u, u > 0);
  }
  TORCHBCD_HOST_DEVICE Jet<double> branch(double u, double inside) const { return jet(u, inside > 0); }
  TORCHBCD_HOST_DEVICE double next_break(double u) const { return u < 0 ? 0 : kInfinity; }
  TORCHBCD_HOST_DEVICE double steepest() const {
    const double below = std::fabs(alpha) * rate;
    return below > 1 ? scale * below : scale;
  }
  TORCHBCD_HOST_DEVICE Bends bends() const {
    const double bend = scale * alpha * rate * rate;
    return {bend > 0 ? bend : 0.0, bend < 0 ? -bend : 0.0, std::fabs(bend) * rate};
  }
  // sigma'' = rate sigma'
  TORCHBCD_HOST_DEVICE double dip(double most) const { return 0.25 * (most * rate) * (most * rate); }
  // With zero only where sigma' does not jump there.
  TORCHBCD_HOST_DEVICE double smooth_between(double low, double high) const {
    const double jump = alpha * rate - 1;
    const double apart = low > 0 ? 1.0 : (high < 0 ? 1.0 : 0.0);
    return jump <= 1e-12 ? (jump >= -1e-12 ? 1.0 : apart) : apart;
  }

  // For alpha >= 0, where it is monotone.
  TORCHBCD_HOST_DEVICE double preimage_low(double t) const {
    return t <= -scale * alpha ? -kInfinity : preimage(t);
  }
  TORCHBCD_HOST_DEVICE double preimage_high(double t) const {
    return t < 0 && t <= -scale * alpha ? -kInfinity : preimage(t);
  }

 private:
  TORCHBCD_HOST_DEVICE double preimage(double t) const {
    return t < 0 ? std::log1p(t / (scale * alpha)) / rate : t / scale;
  }
};

}  // namespace torchbcd::functors
