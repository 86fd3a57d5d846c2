#include <ATen/Dispatch.h>

#include <variant>

#include "functors/updates.h"
#include "ops/cpu/loops.h"
#include "ops/kernels.h"

namespace torchbcd::kernels {
namespace {

template <typename T>
struct StorePair {
  static constexpr int outputs = 2;

  static inline __attribute__((always_inline)) void at(const std::array<T*, 2>& out, int64_t i,
                                                       const functors::AuxiliaryPair<T>& pair) {
    out[0][i] = pair.u;
    out[1][i] = pair.residual;
  }
};

// f(functor) for the functor that `chosen` holds, in the iterator's type.
#define TORCHBCD_VISIT(NAME, CHOSEN, ...) \
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), NAME, [&] { std::visit([&](auto f) __VA_ARGS__, CHOSEN); })

void activation_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  TORCHBCD_VISIT("activation", chosen, {
    cpu::elementwise<scalar_t, 1>(iter, functors::ActivationValue<scalar_t, decltype(f)>{f});
  });
}

void activation_derivative_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen) {
  TORCHBCD_VISIT("activation_derivative", chosen, {
    cpu::elementwise<scalar_t, 1>(iter, functors::ActivationDerivative<scalar_t, decltype(f)>{f});
  });
}

void prox_activation_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma) {
  TORCHBCD_VISIT("prox_activation", chosen, {
    cpu::elementwise<scalar_t, 2>(iter,
                                  functors::Prox<scalar_t, decltype(f)>{f, static_cast<scalar_t>(gamma)});
  });
}

void auxiliary_update_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                          double rho, double alpha) {
  TORCHBCD_VISIT("auxiliary_update", chosen, {
    cpu::elementwise<scalar_t, 3, StorePair<scalar_t>>(
        iter, functors::AuxiliaryUpdate<scalar_t, decltype(f)>{
                  f, static_cast<scalar_t>(gamma), static_cast<scalar_t>(rho), static_cast<scalar_t>(alpha)});
  });
}

void output_centre_cpu(at::TensorIteratorBase& iter, const functors::Activation& chosen, double gamma,
                       double alpha) {
  TORCHBCD_VISIT("output_centre", chosen, {
    cpu::elementwise<scalar_t, 2>(iter, functors::OutputCentre<scalar_t, decltype(f)>{
                                            f, static_cast<scalar_t>(gamma), static_cast<scalar_t>(alpha)});
  });
}

void loss_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen) {
  TORCHBCD_VISIT("loss", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      cpu::elementwise<scalar_t, 2>(iter, functors::LossValue<scalar_t, decltype(f)>{f});
    }
  });
}

void prox_loss_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen, double gamma) {
  TORCHBCD_VISIT("prox_loss", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      cpu::elementwise<scalar_t, 2>(iter,
                                    functors::Prox<scalar_t, decltype(f)>{f, static_cast<scalar_t>(gamma)});
    }
  });
}

void loss_update_cpu(at::TensorIteratorBase& iter, const functors::Loss& chosen,
                     const functors::Regularizer& regularizer, double weight, double curvature) {
  TORCHBCD_VISIT("loss_update", chosen, {
    if constexpr (!functors::is_row_loss<decltype(f)>) {
      cpu::elementwise<scalar_t, 3>(
          iter, functors::LossUpdate<scalar_t, decltype(f)>{f, regularizer, static_cast<scalar_t>(weight),
                                                            static_cast<scalar_t>(curvature)});
    }
  });
}

#undef TORCHBCD_VISIT

void prox_regularizer_cpu(at::TensorIteratorBase& iter, const functors::Regularizer& regularizer, double t) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "prox_regularizer", [&] {
    cpu::elementwise<scalar_t, 1>(iter,
                                  functors::RegularizerProx<scalar_t>{regularizer, static_cast<scalar_t>(t)});
  });
}

// Calls f(row) for every row; `row` points at the first entries of the row in each matrix.
template <typename T, size_t tensors, typename Function>
void for_each_row(at::TensorIteratorBase& iter, const RowLayout& layout, const Function& f) {
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, layout.classes));
  iter.for_each(
      [&](char** data, const int64_t* strides, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          std::array<T*, tensors> row;
          for (size_t t = 0; t < tensors; ++t) {
            row[t] = reinterpret_cast<T*>(data[t] + i * strides[t]);
          }
          f(row);
        }
      },
      grain);
}

void cross_entropy_update_cpu(at::TensorIteratorBase& iter, const RowLayout& layout,
                              const functors::Regularizer& regularizer, double weight, double curvature) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "cross_entropy_update", [&] {
    for_each_row<scalar_t, 4>(iter, layout, [&](const std::array<scalar_t*, 4>& row) {
      functors::CrossEntropyRow<scalar_t>{row[1],
                                          row[2],
                                          row[0],
                                          layout.target_stride,
                                          layout.centre_stride,
                                          layout.out_stride,
                                          layout.classes,
                                          weight * static_cast<double>(*row[3]),
                                          curvature,
                                          regularizer}
          .solve();
    });
  });
}

void cross_entropy_cpu(at::TensorIteratorBase& iter, const RowLayout& layout) {
  AT_DISPATCH_FLOATING_TYPES(iter.common_dtype(), "cross_entropy", [&] {
    for_each_row<scalar_t, 3>(iter, layout, [&](const std::array<scalar_t*, 3>& row) {
      *row[0] = static_cast<scalar_t>(functors::CrossEntropyRow<scalar_t>{
          row[1], row[2], nullptr, layout.target_stride, layout.centre_stride, 0, layout.classes, 1, 0, {}}
                                          .value());
    });
  });
}

const ActivationKernel::OnCPU register_activation(activation, &activation_cpu);
const ActivationKernel::OnCPU register_derivative(activation_derivative, &activation_derivative_cpu);
const LossKernel::OnCPU register_loss(loss, &loss_cpu);
const ProxActivationKernel::OnCPU register_prox_activation(prox_activation, &prox_activation_cpu);
const ProxLossKernel::OnCPU register_prox_loss(prox_loss, &prox_loss_cpu);
const RegularizerKernel::OnCPU register_prox_regularizer(prox_regularizer, &prox_regularizer_cpu);
const AuxiliaryUpdateKernel::OnCPU register_auxiliary_update(auxiliary_update, &auxiliary_update_cpu);
const OutputCentreKernel::OnCPU register_output_centre(output_centre, &output_centre_cpu);
const LossUpdateKernel::OnCPU register_loss_update(loss_update, &loss_update_cpu);
const CrossEntropyUpdateKernel::OnCPU register_cross_entropy_update(cross_entropy_update,
                                                                    &cross_entropy_update_cpu);
const CrossEntropyKernel::OnCPU register_cross_entropy(cross_entropy, &cross_entropy_cpu);

}  // namespace
}  // namespace torchbcd::kernels
