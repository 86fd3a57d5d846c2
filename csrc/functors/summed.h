// What the summed kernels apply to each element: a result for each output, and a term for each sum over all
// elements, so that a pass over the data also measures what the algorithm has to know of it.
//
// Wang et al. write the variables of a layer z, a and its affine map's value q = W a + b here; phi is
// rho/2 |z - q|^2.
#pragma once

#include "functors/pass.h"

namespace torchbcd::functors {

template <typename T, int outputs, int sums>
struct EntryAndSums {
  T out[outputs > 0 ? outputs : 1];
  double sum[sums];
};

// In float64, where the square of a float32 neither overflows nor vanishes.
template <typename T>
TORCHBCD_HOST_DEVICE double square(T x) {
  return static_cast<double>(x) * static_cast<double>(x);
}

// sum x^2
template <typename T, typename = Nothing>
struct SumOfSquares {
  using Pass = SummedPass<NoChoice, 1, 0, 1>;
  using Result = EntryAndSums<T, 0, 1>;

  TORCHBCD_HOST_DEVICE Result operator()(T x) const { return {{T(0)}, {square(x)}}; }
};

// r = a - b; sum r^2
template <typename T, typename = Nothing>
struct Difference {
  using Pass = SummedPass<NoChoice, 2, 1, 1>;
  using Result = EntryAndSums<T, 1, 1>;

  TORCHBCD_HOST_DEVICE Result operator()(T a, T b) const {
    const T r = a - b;
    return {{r}, {square(r)}};
  }
};

// r = q + omega (q - q_previous) - z; sum r^2: the residual of an extrapolated map
template <typename T, typename = Nothing>
struct ExtrapolatedDifference {
  using Pass = SummedPass<NoChoice, 3, 1, 1, double>;
  using Result = EntryAndSums<T, 1, 1>;

  T omega;

  TORCHBCD_HOST_DEVICE Result operator()(T q, T q_previous, T z) const {
    const T r = (q - z) + omega * (q - q_previous);
    return {{r}, {square(r)}};
  }
};

// q = z + (r + step d); sum (r + step d)^2: a map and its residual after a step
template <typename T, typename = Nothing>
struct ResidualStep {
  using Pass = SummedPass<NoChoice, 3, 1, 1, double>;
  using Result = EntryAndSums<T, 1, 1>;

  T step;

  TORCHBCD_HOST_DEVICE Result operator()(T r, T d, T z) const {
    const T moved = r + step * d;
    return {{z + moved}, {square(moved)}};
  }
};

// The z block of a hidden layer (Wang et al., eq. 4): z' = clip(q, B1, B2); sum (q - z')^2. The box of z for
// given a, B1 <= z <= B2, is {z : |a - sigma(z)| <= eps} (after eq. 5). Its ends are computed in float64. The
// z that is there already belongs to it in exact arithmetic, and by fiat in floating point, where the ends of
// a saturated activation are lost to rounding: that keeps every z finite and every step a projection. A NaN
// for z says that there is none yet: then the box alone counts.
template <typename T, typename Activation>
struct PreimageProjection {
  using Pass = SummedPass<InvertibleActivation, 3, 1, 1, double>;
  using Result = EntryAndSums<T, 1, 1>;

  Activation activation;
  double eps;

  TORCHBCD_HOST_DEVICE Result operator()(T q, T a, T z) const {
    const T low = static_cast<T>(activation.preimage_low(static_cast<double>(a) - eps));
    const T high = static_cast<T>(activation.preimage_high(static_cast<double>(a) + eps));
    const T projected = clip(q, z < low ? z : low, z > high ? z : high);
    const T r = q - projected;
    return {{projected}, {square(r)}};
  }
};

// The a block (Wang et al., eq. 6), from the extrapolated point e = a + omega (a - a_previous) and the
// gradient rho g there: a' = clip(e - rho g / tau, sigma(z) - eps, sigma(z) + eps), d = a' - e. The a that is
// there belongs to the box, as above. Sums: d^2, (a' - a)^2.
template <typename T, typename Activation>
struct ImageStep {
  using Pass = SummedPass<InvertibleActivation, 4, 2, 2, double, double, double>;
  using Result = EntryAndSums<T, 2, 2>;

  Activation activation;
  T omega, step, eps;  // step = rho / tau

  TORCHBCD_HOST_DEVICE Result operator()(T a, T a_previous, T g, T z) const {
    const T centre = activation.value(z);
    const T low = centre - eps < a ? centre - eps : a;
    const T high = centre + eps > a ? centre + eps : a;
    const T from = a + omega * (a - a_previous);
    const T moved = clip(from - step * g, low, high);
    const T d = moved - from;
    const T change = moved - a;
    return {{moved, d}, {square(d), square(change)}};
  }
};

// The block of (z, a) together: with the target v = e - rho g / tau of a,
//
//   (z', a') = argmin of  rho_z/2 (z - q)^2 + tau/2 (a - v)^2  subject to  |a - sigma(z)| <= eps.
//
// For a given z the best a is clip(v, sigma(z) - eps, sigma(z) + eps), which leaves
// rho_z/2 (z - q)^2 + tau/2 max(|sigma(z) - v| - eps, 0)^2. With sigma monotone, z = q is best where
// |sigma(q) - v| <= eps. Where sigma(q) < v - eps, no z with sigma(z) > v - eps is as good as the nearest one
// with sigma(z) = v - eps, if there is one; and where sigma(z) <= v - eps the objective is that of the
// activation's own prox (Zeng et al., eq. 33), of target v - eps and centre q, whose minimiser lies there.
// Likewise on the other side. Sums: d^2 with d = a' - e, (q - z')^2, (a' - a)^2 + (z' - z)^2.
template <typename T, typename Activation>
struct JointStep {
  using Pass = SummedPass<InvertibleActivation, 5, 3, 3, double, double, double, double>;
  using Result = EntryAndSums<T, 3, 3>;

  Activation activation;
  T omega, step, eps;  // step = rho / tau
  T ratio;             // rho_z / tau

  TORCHBCD_HOST_DEVICE Result operator()(T a, T a_previous, T g, T z, T q) const {
    const T from = a + omega * (a - a_previous);
    const T v = from - step * g;
    const T value = activation.value(q);
    const bool below = value < v - eps;
    const bool above = value > v + eps;
    T moved_z = q;
    if (below || above) {
      moved_z = activation.prox(below ? v - eps : v + eps, q, ratio);
    }
    const T centre = activation.value(moved_z);
    const T moved = clip(v, centre - eps, centre + eps);
    const T d = moved - from;
    const T r = q - moved_z;
    const T change = moved - a;
    const T change_z = moved_z - z;
    return {{moved_z, moved, d}, {square(d), square(r), square(change) + square(change_z)}};
  }
};

// A residual after a relaxed ridge step (the blocks of RelaxedBCD are derived in docs/relaxed.md): r' = keep
// r + gain x; sum r'^2
template <typename T, typename = Nothing>
struct RelaxedResidual {
  using Pass = SummedPass<NoChoice, 2, 1, 1, double, double>;
  using Result = EntryAndSums<T, 1, 1>;

  T keep, gain;

  TORCHBCD_HOST_DEVICE Result operator()(T r, T x) const {
    const T next = keep * r + gain * x;
    return {{next}, {square(next)}};
  }
};

// The direction of steepest descent of |r - J d W^T|^2 + ratio |s + d|^2 in d at zero, J = sigma'(u): with g
// = r W, z = J g - ratio s, and J z, what it moves the state by to first order. Sum: z^2.
template <typename T, typename Activation>
struct StateDirection {
  using Pass = SummedPass<EveryActivation, 3, 2, 1, double>;
  using Result = EntryAndSums<T, 2, 1>;

  Activation activation;
  T ratio;

  TORCHBCD_HOST_DEVICE Result operator()(T g, T u, T s) const {
    const T slope = activation.derivative(u);
    const T z = slope * g - ratio * s;
    return {{z, slope * z}, {square(z)}};
  }
};

// The state moved along z: s' = keep s + scale z and sigma(u + scale z) - v. Sum: s'^2.
template <typename T, typename Activation>
struct StateMove {
  using Pass = SummedPass<EveryActivation, 4, 2, 1, double, OnDevice>;
  using Result = EntryAndSums<T, 2, 1>;

  Activation activation;
  T keep, scale;

  TORCHBCD_HOST_DEVICE Result operator()(T u, T v, T z, T s) const {
    const T d = scale * z;
    const T slack = keep * s + d;
    return {{slack, activation.value(u + d) - v}, {square(slack)}};
  }
};

// StateMove where sigma is piecewise linear, with what the move of the state is beyond its linearisation J d:
// nothing but for the units that cross a kink.
template <typename T>
struct LineMoved {
  T slack, change, beyond;
};

template <typename T, typename Activation>
struct LineMove {
  Activation activation;
  T keep, scale;

  TORCHBCD_HOST_DEVICE LineMoved<T> operator()(T u, T v, T z, T s) const {
    const T d = scale * z;
    const T change = activation.value(u + d) - v;
    const T beyond = on_one_piece(activation, u, u + d) ? T(0) : change - activation.derivative(u) * d;
    return {keep * s + d, change, beyond};
  }
};

}  // namespace torchbcd::functors
