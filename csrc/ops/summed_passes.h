// Fused elementwise passes that also measure: each writes its results into tensors the caller owns and
// returns sums over all elements, accumulated in float64 in an order that does not depend on the number of
// threads. All tensors are contiguous and of one shape; an output may be an input. The formulas are in
// functors/summed.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "functors/activations.h"

namespace torchbcd::passes {

/// sum x^2
double sum_of_squares(const at::Tensor& x);

/// sum x^2 of each of some tensors of one kind; a GPU is waited for once.
std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors);

/// r = a - b; returns |r|^2
double difference(const at::Tensor& a, const at::Tensor& b, const at::Tensor& r);

/// r = q + omega (q - q_previous) - z; returns |r|^2
double extrapolated_difference(const at::Tensor& q, const at::Tensor& q_previous, const at::Tensor& z,
                               double omega, const at::Tensor& r);

/// q = z + (r + step d); returns |r + step d|^2
double residual_step(const at::Tensor& r, const at::Tensor& d, const at::Tensor& z, double step,
                     const at::Tensor& q);

/// z_out = the point of {z : |a - sigma(z)| <= eps} next to q, where z itself counts as one; returns |q -
/// z_out|^2
double preimage_projection(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                           const functors::Activation& activation, double eps, const at::Tensor& z_out);

struct StateStep {
  double direction;       // |a_out - e|^2, where e = a + omega (a - a_previous)
  double change;          // |a_out - a|^2, and |z_out - z|^2 where z moves too
  double z_residual = 0;  // |q - z_out|^2, where z moves too
};

/// a_out = clip(e - step g, sigma(z) - eps, sigma(z) + eps), d = a_out - e
StateStep image_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                     const at::Tensor& z, const functors::Activation& activation, double omega, double step,
                     double eps, const at::Tensor& a_out, const at::Tensor& d);

/// (z_out, a_out) = argmin of ratio/2 |z - q|^2 + 1/2 |a - (e - step g)|^2 subject to |a - sigma(z)| <= eps
StateStep joint_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                     const at::Tensor& z, const at::Tensor& q, const functors::Activation& activation,
                     double omega, double step, double eps, double ratio, const at::Tensor& z_out,
                     const at::Tensor& a_out, const at::Tensor& d);

// The passes below sum over each row: they return (n, 1), float64, on the data's device.

/// sum x^2
at::Tensor row_sums_of_squares(const at::Tensor& x);

/// r_out = keep r + gain x; returns |r_out|^2
at::Tensor relaxed_residual(const at::Tensor& r, const at::Tensor& x, double keep, double gain,
                            const at::Tensor& r_out);

/// z = sigma'(u) g - ratio s and jz = sigma'(u) z; returns |z|^2. z may be g.
at::Tensor state_direction(const at::Tensor& g, const at::Tensor& u, const at::Tensor& s,
                           const functors::Activation& activation, double ratio, const at::Tensor& z,
                           const at::Tensor& jz);

/// s_out = keep s + scale z and dv = sigma(u + scale z) - v, where `scale` is one number, in float64; returns
/// |s_out|^2
at::Tensor state_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                      const functors::Activation& activation, double keep, const at::Tensor& scale,
                      const at::Tensor& s_out, const at::Tensor& dv);

struct LineMove {
  at::Tensor slack_sums;  // |s_out|^2, (n, 1)
  at::Tensor sums;        // |R - dv W^T|^2 + ratio |s_out|^2, (n, 1)
};

/// Whether line_move takes an activation on a device.
bool has_line_move(const functors::Activation& activation, const at::Device& device);

/// state_move, and the value of the problem there without a matrix product: `product` is jz W^T, and only
/// units that cross a kink do not move by scale jz.
LineMove line_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                   const functors::Activation& activation, double keep, double ratio,
                   const at::Tensor& residual, const at::Tensor& product, const at::Tensor& weight,
                   const at::Tensor& scale, const at::Tensor& s_out, const at::Tensor& dv);

}  // namespace torchbcd::passes
