// The fused passes of a sweep: all entries to the formulas of csrc/functors. They write into tensors the
// caller owns and allocate nothing of the data's size, so that a sweep over n rows costs no (n, d)
// allocation.
//
// A pass is a functor, an entry here, and its name in the list of instantiate.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "functors/summed.h"
#include "functors/updates.h"
#include "kernels/launch.h"

namespace torchbcd::passes {

// --- entry by entry; tensors broadcast and may be strided. What is returned is newly allocated where no
// `out` is given ---

/// out = sigma(u)
inline at::Tensor activation(const at::Tensor& u, const functors::AnyActivation& activation,
                             const at::Tensor& out = {}) {
  return kernels::entries<functors::ActivationValue>({out}, {u}, activation);
}

/// out = sigma'(u), one of the derivatives where there are several
inline at::Tensor activation_derivative(const at::Tensor& u, const functors::AnyActivation& activation,
                                        const at::Tensor& out = {}) {
  return kernels::entries<functors::ActivationDerivative>({out}, {u}, activation);
}

/// left, right = the derivatives of sigma from the left and from the right
inline void activation_slopes(const at::Tensor& u, const functors::AnyActivation& activation,
                              const at::Tensor& left, const at::Tensor& right) {
  kernels::entries<functors::ActivationSlopes>({left, right}, {u}, activation);
}

/// out = argmin over u of 1/2 (sigma(u) - a)^2 + gamma/2 (u - b)^2; out may be a or b
inline at::Tensor prox_activation(const at::Tensor& a, const at::Tensor& b,
                                  const functors::AnyActivation& activation, double gamma,
                                  const at::Tensor& out = {}) {
  return kernels::entries<functors::ActivationProx>({out}, {a, b}, activation, gamma);
}

/// argmin over v of l(v; y) + gamma/2 (v - b)^2, for a loss with a value an entry
inline at::Tensor prox_loss(const at::Tensor& y, const at::Tensor& b, const functors::AnyLoss& loss,
                            double gamma) {
  return kernels::entries<functors::LossProx>({at::Tensor()}, {y, b}, loss, gamma);
}

/// out = argmin over u of t r(u) + 1/2 (u - x)^2; out may be x
inline at::Tensor prox_regularizer(const at::Tensor& x, const Regularizer& regularizer, double t,
                                   const at::Tensor& out = {}) {
  return kernels::entries<functors::RegularizerProx>({out}, {x}, regularizer, t);
}

/// l1 |x| + l2/2 x^2
inline at::Tensor regularizer_penalty(const at::Tensor& x, const Regularizer& regularizer) {
  return kernels::entries<functors::RegularizerPenalty>({at::Tensor()}, {x}, regularizer);
}

/// low, high = the ends of the subdifferential of r
inline void regularizer_subdifferential(const at::Tensor& x, const Regularizer& regularizer,
                                        const at::Tensor& low, const at::Tensor& high) {
  kernels::entries<functors::RegularizerSubdifferential>({low, high}, {x}, regularizer);
}

/// u_out = argmin over x of gamma/2 (v - sigma(x))^2 + rho/2 (x - p)^2 + alpha/2 (x - u)^2 and
/// residual_out = u_out - p, where p = u - residual.
inline void auxiliary_update(const at::Tensor& v, const at::Tensor& u, const at::Tensor& residual,
                             const functors::AnyActivation& activation, double gamma, double rho,
                             double alpha, const at::Tensor& u_out, const at::Tensor& residual_out) {
  kernels::entries<functors::AuxiliaryUpdate>({u_out, residual_out}, {v, u, residual}, activation, gamma, rho,
                                              alpha);
}

/// out = argmin over x of gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2: the centre that the two proximal
/// terms of the output layer's V have in common.
inline void output_centre(const at::Tensor& v, const at::Tensor& u, const functors::AnyActivation& activation,
                          double gamma, double alpha, const at::Tensor& out) {
  kernels::entries<functors::OutputCentre>({out}, {v, u}, activation, gamma, alpha);
}

// --- losses: entry by entry or, where a row's entries are coupled, row by row ---

/// out = argmin over x of weight sum_j w_j l(x_j; y_j) + curvature/2 |x - centre|^2 + s(x), where
/// `row_weight` holds the w_j, (n, 1) or (1, 1). out may be centre.
inline void loss_update(const at::Tensor& y, const at::Tensor& centre, const at::Tensor& row_weight,
                        const functors::AnyLoss& loss, const Regularizer& regularizer, double weight,
                        double curvature, const at::Tensor& out) {
  if (out.numel() == 0) {
    return;
  }
  if (functors::couples_row(loss)) {
    kernels::rows<functors::RowLossUpdate>({out, y, centre, row_weight.expand({out.size(0), 1})}, loss,
                                           regularizer, weight, curvature);
  } else {
    kernels::entries<functors::LossUpdate>({out}, {y, centre, row_weight}, loss, regularizer, weight,
                                           curvature);
  }
}

/// l(v_j; y_j) of every row, summed over the row's entries: shape (n, 1), newly allocated.
at::Tensor row_losses(const at::Tensor& y, const at::Tensor& v, const functors::AnyLoss& loss);

/// out = the gradient of l(v; y) in v, for a differentiable loss
inline void loss_gradient(const at::Tensor& y, const at::Tensor& v, const functors::AnyLoss& loss,
                          const at::Tensor& out) {
  if (functors::couples_row(loss)) {
    kernels::rows<functors::RowLossGradient>({out, y, v}, loss);
  } else {
    kernels::entries<functors::LossGradient>({out}, {y, v}, loss);
  }
}

/// A Lipschitz constant of that gradient for every row, (n, 1), newly allocated, for a loss that has one.
at::Tensor gradient_lipschitz(const at::Tensor& y, const functors::AnyLoss& loss);

/// The subdifferential of l(v; y) in v, {g + t d : low <= g <= high, 0 <= t <= 1} with one t a row, all of
/// them (n, d): an interval an entry for a loss that is a sum over entries, a segment d a row for one that is
/// not. A gradient is low and high, and d is zero. `unit` of v, its relative rounding, tells which rows are
/// at the kink of a loss that couples their entries.
inline void loss_subdifferential(const at::Tensor& y, const at::Tensor& v, const functors::AnyLoss& loss,
                                 double unit, const at::Tensor& low, const at::Tensor& high,
                                 const at::Tensor& segment) {
  if (functors::couples_row(loss)) {
    kernels::rows<functors::RowLossSubgradient>({low, y, v}, loss, unit, 0.0);
    kernels::rows<functors::RowLossSubgradient>({segment, y, v}, loss, unit, 1.0);
    at::Tensor(high).copy_(low);
    at::Tensor(segment).sub_(low);
  } else {
    kernels::entries<functors::LossSubdifferential>({low, high}, {y, v}, loss);
    at::Tensor(segment).zero_();
  }
}

// --- passes that also measure: they return sums over all entries, accumulated in float64 in an order that
// does not depend on the number of threads. All tensors are contiguous and of one shape; an output may be an
// input ---

/// sum x^2
inline double sum_of_squares(const at::Tensor& x) {
  return kernels::sums<functors::SumOfSquares>({}, {x})[0];
}

/// sum x^2 of each of some tensors of one kind; a GPU is waited for once.
std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors);

/// r = a - b; returns |r|^2
inline double difference(const at::Tensor& a, const at::Tensor& b, const at::Tensor& r) {
  return kernels::sums<functors::Difference>({r}, {a, b})[0];
}

/// r = q + omega (q - q_previous) - z; returns |r|^2
inline double extrapolated_difference(const at::Tensor& q, const at::Tensor& q_previous, const at::Tensor& z,
                                      double omega, const at::Tensor& r) {
  return kernels::sums<functors::ExtrapolatedDifference>({r}, {q, q_previous, z}, omega)[0];
}

/// q = z + (r + step d); returns |r + step d|^2
inline double residual_step(const at::Tensor& r, const at::Tensor& d, const at::Tensor& z, double step,
                            const at::Tensor& q) {
  return kernels::sums<functors::ResidualStep>({q}, {r, d, z}, step)[0];
}

/// z_out = the point of {z : |a - sigma(z)| <= eps} next to q, where z itself counts as one; returns |q -
/// z_out|^2
inline double preimage_projection(const at::Tensor& q, const at::Tensor& a, const at::Tensor& z,
                                  const functors::AnyActivation& activation, double eps,
                                  const at::Tensor& z_out) {
  return kernels::sums<functors::PreimageProjection>({z_out}, {q, a, z}, activation, eps)[0];
}

struct StateStep {
  double direction;       // |a_out - e|^2, where e = a + omega (a - a_previous)
  double change;          // |a_out - a|^2, and |z_out - z|^2 where z moves too
  double z_residual = 0;  // |q - z_out|^2, where z moves too
};

/// a_out = clip(e - step g, sigma(z) - eps, sigma(z) + eps), d = a_out - e
inline StateStep image_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                            const at::Tensor& z, const functors::AnyActivation& activation, double omega,
                            double step, double eps, const at::Tensor& a_out, const at::Tensor& d) {
  const auto sums =
      kernels::sums<functors::ImageStep>({a_out, d}, {a, a_previous, g, z}, activation, omega, step, eps);
  return {sums[0], sums[1]};
}

/// (z_out, a_out) = argmin of ratio/2 |z - q|^2 + 1/2 |a - (e - step g)|^2 subject to |a - sigma(z)| <= eps
inline StateStep joint_step(const at::Tensor& a, const at::Tensor& a_previous, const at::Tensor& g,
                            const at::Tensor& z, const at::Tensor& q,
                            const functors::AnyActivation& activation, double omega, double step, double eps,
                            double ratio, const at::Tensor& z_out, const at::Tensor& a_out,
                            const at::Tensor& d) {
  const auto sums = kernels::sums<functors::JointStep>({z_out, a_out, d}, {a, a_previous, g, z, q},
                                                       activation, omega, step, eps, ratio);
  return {sums[0], sums[2], sums[1]};
}

// --- the same with a sum for each row: they return (n, 1), float64, on the data's device ---

/// sum x^2
inline at::Tensor row_sums_of_squares(const at::Tensor& x) {
  return kernels::row_sums<functors::SumOfSquares>({}, {x});
}

/// r = a - b; returns |r|^2
inline at::Tensor row_difference(const at::Tensor& a, const at::Tensor& b, const at::Tensor& r) {
  return kernels::row_sums<functors::Difference>({r}, {a, b});
}

/// r_out = keep r + gain x; returns |r_out|^2
inline at::Tensor relaxed_residual(const at::Tensor& r, const at::Tensor& x, double keep, double gain,
                                   const at::Tensor& r_out) {
  return kernels::row_sums<functors::RelaxedResidual>({r_out}, {r, x}, keep, gain);
}

/// z = sigma'(u) g - ratio s and jz = sigma'(u) z; returns |z|^2. z may be g.
inline at::Tensor state_direction(const at::Tensor& g, const at::Tensor& u, const at::Tensor& s,
                                  const functors::AnyActivation& activation, double ratio,
                                  const at::Tensor& z, const at::Tensor& jz) {
  return kernels::row_sums<functors::StateDirection>({z, jz}, {g, u, s}, activation, ratio);
}

/// s_out = keep s + scale z and dv = sigma(u + scale z) - v, where `scale` is one number, in float64; returns
/// |s_out|^2
inline at::Tensor state_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z,
                             const at::Tensor& s, const functors::AnyActivation& activation, double keep,
                             const at::Tensor& scale, const at::Tensor& s_out, const at::Tensor& dv) {
  return kernels::row_sums<functors::StateMove>({s_out, dv}, {u, v, z, s}, activation, keep,
                                                functors::OnDevice{scale.const_data_ptr<double>()});
}

struct LineMove {
  at::Tensor slack_sums;  // |s_out|^2, (n, 1)
  at::Tensor sums;        // |R - dv W^T|^2 + ratio |s_out|^2, (n, 1)
};

/// Whether line_move takes an activation on a device: piecewise linear ones on the CPU, where the few units
/// that cross a kink can be dealt with one by one.
bool has_line_move(const functors::AnyActivation& activation, const at::Device& device);

/// state_move, and the value of the problem there without a matrix product: `product` is jz W^T, and only
/// units that cross a kink do not move by scale jz.
LineMove line_move(const at::Tensor& u, const at::Tensor& v, const at::Tensor& z, const at::Tensor& s,
                   const functors::AnyActivation& activation, double keep, double ratio,
                   const at::Tensor& residual, const at::Tensor& product, const at::Tensor& weight,
                   const at::Tensor& scale, const at::Tensor& s_out, const at::Tensor& dv);

}  // namespace torchbcd::passes
