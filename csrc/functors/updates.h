// What the passes without sums apply to each entry or row: an activation, a loss, their derivatives and
// proxes, and the block updates of Algorithm 2 as sums of quadratics and one prox. CPU and CUDA kernels only
// loop over these.
//
// The block updates are written around the current point ("residual form"): what is computed is the
// change, which shrinks as the sweeps converge, so that rounding errors shrink with it.
#pragma once

#include "functors/pass.h"
#include "functors/regularizers.h"
#include "functors/trial.h"

namespace torchbcd::functors {

// A pass that is a prox of `proximal`, the activation or loss, says what problem that solves at an entry, and
// what its minimiser makes of the entry: so loops can solve many at once (functors/trial.h).
template <typename T, typename Functor>
inline constexpr bool solves_by_trials = requires(const Functor& functor, const ProxProblem& problem) {
  functor.proximal().template first_trial<T>(problem);
};

// Whether the pass is that prox with the parameters it has: where it does not say, it always is.
template <typename Functor>
bool is_one_prox(const Functor& functor) {
  if constexpr (requires { functor.is_one_prox(); }) {
    return functor.is_one_prox();
  } else {
    return true;
  }
}

template <typename T, typename Activation>
struct ActivationValue {
  using Pass = EntryPass<EveryActivation, 1, 1>;

  Activation activation;

  TORCHBCD_HOST_DEVICE T operator()(T u) const { return activation.value(u); }
};

template <typename T, typename Activation>
struct ActivationDerivative {
  using Pass = EntryPass<EveryActivation, 1, 1>;

  Activation activation;

  TORCHBCD_HOST_DEVICE T operator()(T u) const { return activation.derivative(u); }
};

// The derivatives from the left and from the right.
template <typename T, typename Activation>
struct ActivationSlopes {
  using Pass = EntryPass<EveryActivation, 1, 2>;

  Activation activation;

  TORCHBCD_HOST_DEVICE Pair<T> operator()(T u) const {
    if constexpr (requires { activation.slopes(u); }) {
      return activation.slopes(u);
    } else {
      const T slope = static_cast<T>(activation.derivative(u));
      return {slope, slope};
    }
  }
};

template <typename T, typename Loss>
struct LossValue {
  using Pass = EntryPass<EntryLoss, 2, 1>;

  Loss loss;

  TORCHBCD_HOST_DEVICE T operator()(T y, T v) const { return loss.value(v, y); }
};

template <typename T, typename Loss>
struct LossSubdifferential {
  using Pass = EntryPass<EntryLoss, 2, 2>;

  Loss loss;

  TORCHBCD_HOST_DEVICE Pair<T> operator()(T y, T v) const {
    if constexpr (Loss::differentiable) {
      const T gradient = loss.gradient(v, y);
      return {gradient, gradient};
    } else {
      return loss.subdifferential(v, y);
    }
  }
};

template <typename T, typename Loss>
struct LossGradient {
  using Pass = EntryPass<DifferentiableEntryLoss, 2, 1>;

  Loss loss;

  TORCHBCD_HOST_DEVICE T operator()(T y, T v) const { return loss.gradient(v, y); }
};

// A bound of the gradient's slope in an entry.
template <typename T, typename Loss>
struct LossGradientLipschitz {
  using Pass = EntryPass<LipschitzEntryLoss, 1, 1>;

  Loss loss;

  TORCHBCD_HOST_DEVICE T operator()(T y) const { return loss.gradient_lipschitz(y); }
};

template <typename T, typename Activation>
struct ActivationProx {
  using Pass = EntryPass<EveryActivation, 2, 1, double>;

  Activation activation;
  T gamma;

  TORCHBCD_HOST_DEVICE T operator()(T a, T b) const { return activation.prox(a, b, gamma); }

  TORCHBCD_HOST_DEVICE const Activation& proximal() const { return activation; }
  TORCHBCD_HOST_DEVICE ProxProblem problem(T a, T b) const { return {a, b, gamma}; }
  TORCHBCD_HOST_DEVICE T result(T minimiser, T, T) const { return minimiser; }
};

template <typename T, typename Loss>
struct LossProx {
  using Pass = EntryPass<EntryLoss, 2, 1, double>;

  Loss loss;
  T gamma;

  TORCHBCD_HOST_DEVICE T operator()(T y, T b) const { return loss.prox(y, b, gamma); }

  TORCHBCD_HOST_DEVICE const Loss& proximal() const { return loss; }
  TORCHBCD_HOST_DEVICE ProxProblem problem(T y, T b) const { return {y, b, gamma}; }
  TORCHBCD_HOST_DEVICE T result(T minimiser, T, T) const { return minimiser; }
};

// The U block (Zeng et al., Algorithm 2). With p = u - residual the layer's product W V + b:
//
//   u' = argmin over x of  gamma/2 (v - sigma(x))^2 + rho/2 (x - p)^2 + alpha/2 (x - u)^2,
//   residual' = u' - p.
//
// The two quadratics of x make one, (rho + alpha)/2 (x - c)^2 with c = u - rho/(rho + alpha)
// residual.
template <typename T, typename Activation>
struct AuxiliaryUpdate {
  using Pass = EntryPass<EveryActivation, 3, 2, double, double, double>;

  Activation activation;
  T gamma, rho, alpha;

  TORCHBCD_HOST_DEVICE Pair<T> operator()(T v, T u, T residual) const {
    return result(activation.prox(v, centre(u, residual), ratio()), v, u, residual);
  }

  TORCHBCD_HOST_DEVICE const Activation& proximal() const { return activation; }
  TORCHBCD_HOST_DEVICE ProxProblem problem(T v, T u, T residual) const {
    return {v, centre(u, residual), ratio()};
  }
  TORCHBCD_HOST_DEVICE Pair<T> result(T updated, T, T u, T residual) const {
    return {updated, residual + (updated - u)};
  }

 private:
  TORCHBCD_HOST_DEVICE T ratio() const { return (rho + alpha) / gamma; }
  TORCHBCD_HOST_DEVICE T centre(T u, T residual) const { return u - (rho / (rho + alpha)) * residual; }
};

// The V block of the output layer (Zeng et al., Algorithm 2) is
//
//   v' = argmin over x of  weight l(x; y) + gamma/2 (x - sigma(u))^2 + alpha/2 (x - v)^2 + s(x),
//
// where the two quadratics make one, (gamma + alpha)/2 (x - c)^2, with this centre c.
template <typename T, typename Activation>
struct OutputCentre {
  using Pass = EntryPass<EveryActivation, 2, 1, double, double>;

  Activation activation;
  T gamma, alpha;

  TORCHBCD_HOST_DEVICE T operator()(T v, T u) const {
    return v + (gamma / (gamma + alpha)) * (activation.value(u) - v);
  }
};

// argmin over x of  weight row_weight l(x; y) + curvature/2 (x - c)^2 + s(x).
template <typename T, typename Loss>
struct LossUpdate {
  using Pass = EntryPass<EntryLoss, 3, 1, Regularizer, double, double>;

  Loss loss;
  Regularizer regularizer;
  T weight, curvature;

  TORCHBCD_HOST_DEVICE T operator()(T y, T centre, T row_weight) const {
    const LossUpdate self = *this;
    const T w = weight * row_weight;
    return regularizer_with_loss(regularizer, curvature, centre,
                                 [self, y, w](T k, T c) { return self.loss.prox(y, c, k / w); });
  }

  TORCHBCD_HOST_DEVICE const Loss& proximal() const { return loss; }
  bool is_one_prox() const { return regularizer.none(); }
  TORCHBCD_HOST_DEVICE ProxProblem problem(T y, T centre, T row_weight) const {
    return {y, centre, curvature / (weight * row_weight)};
  }
  TORCHBCD_HOST_DEVICE T result(T minimiser, T, T, T) const { return minimiser; }
};

// argmin over u of  t r(u) + 1/2 (u - x)^2. The bounds come last: in one dimension the constrained minimiser
// of a convex function is the projection of the free one.
template <typename T, typename = Nothing>
struct RegularizerProx {
  using Pass = EntryPass<NoChoice, 1, 1, Regularizer, double>;

  Regularizer r;
  T t;

  TORCHBCD_HOST_DEVICE T operator()(T x) const {
    const T threshold = t * static_cast<T>(r.l1);
    const T lowered = x > threshold ? x - threshold : (x < -threshold ? x + threshold : (x != x ? x : T(0)));
    return regularizer_clamp(r, lowered / (T(1) + t * static_cast<T>(r.l2)));
  }
};

// l1 |x| + l2/2 x^2: all of r but its bounds.
template <typename T, typename = Nothing>
struct RegularizerPenalty {
  using Pass = EntryPass<NoChoice, 1, 1, Regularizer>;

  Regularizer r;

  TORCHBCD_HOST_DEVICE T operator()(T x) const {
    const T magnitude = x < T(0) ? -x : x;
    return static_cast<T>(r.l1) * magnitude + static_cast<T>(0.5 * r.l2) * x * x;
  }
};

// The ends of the subdifferential. An entry lies on a bound where the float32 next to it does, whatever T is:
// models in float32 are looked at in float64.
template <typename T, typename = Nothing>
struct RegularizerSubdifferential {
  using Pass = EntryPass<NoChoice, 1, 2, Regularizer>;

  Regularizer r;

  TORCHBCD_HOST_DEVICE Pair<T> operator()(T x) const {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const T smooth = static_cast<T>(r.l2) * x;
    const T kink = static_cast<T>(r.l1);
    const float single = static_cast<float>(x);
    const bool at_low = r.low != -kInfinity && single <= static_cast<float>(r.low);
    const bool at_high = r.high != kInfinity && single >= static_cast<float>(r.high);
    return {at_low ? -infinity : smooth + (x > T(0) ? kink : -kink),
            at_high ? infinity : smooth + (x < T(0) ? -kink : kink)};
  }
};

// --- over the rows of a loss that couples a row's entries. The matrices are out, target and centre (the
// point that a value or a gradient is taken at); the weights of the rows come last ---

// The problem of a row; of its loss alone where no more is given.
template <typename T, typename Loss>
TORCHBCD_HOST_DEVICE typename Loss::template Row<T> row_of(const Loss&, T* const* row,
                                                           const Rows::Layout& layout, double weight = 1,
                                                           double curvature = 0,
                                                           const Regularizer& regularizer = {}) {
  return {row[1],         row[2], row[0],    layout.target_stride, layout.centre_stride, layout.out_stride,
          layout.classes, weight, curvature, regularizer};
}

// out = argmin over x of  weight row_weight l(x; y) + curvature/2 |x - c|^2 + s(x).
template <typename T, typename Loss>
struct RowLossUpdate {
  using Pass = RowPass<RowLoss, 4, Regularizer, double, double>;

  Loss loss;
  Regularizer regularizer;
  double weight, curvature;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    problem(row, layout).solve();
  }

  TORCHBCD_HOST_DEVICE auto problem(T* const* row, const Rows::Layout& layout) const {
    return row_of(loss, row, layout, weight * static_cast<double>(*row[3]), curvature, regularizer);
  }
};

// The first entry of the row of out = l(v; y).
template <typename T, typename Loss>
struct RowLossValue {
  using Pass = RowPass<RowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    *row[0] = static_cast<T>(row_of(loss, row, layout).value());
  }
};

// out = the gradient in v.
template <typename T, typename Loss>
struct RowLossGradient {
  using Pass = RowPass<DifferentiableRowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    row_of(loss, row, layout).gradient();
  }
};

// out = an end, 0 or 1, of the segment that the subdifferential in v is, where v is rounded to `unit` of it;
// a gradient is both.
template <typename T, typename Loss>
struct RowLossSubgradient {
  using Pass = RowPass<RowLoss, 3, double, double>;

  Loss loss;
  double unit, end;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    if constexpr (Loss::differentiable) {
      row_of(loss, row, layout).gradient();
    } else {
      row_of(loss, row, layout).subgradient(end, unit);
    }
  }
};

// The first entry of the row of out = a Lipschitz constant of that gradient.
template <typename T, typename Loss>
struct RowLossGradientLipschitz {
  using Pass = RowPass<LipschitzRowLoss, 3>;

  Loss loss;

  TORCHBCD_HOST_DEVICE void operator()(T* const* row, const Rows::Layout& layout) const {
    *row[0] = static_cast<T>(row_of(loss, row, layout).gradient_lipschitz());
  }
};

}  // namespace torchbcd::functors
