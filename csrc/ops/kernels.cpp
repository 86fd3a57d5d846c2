#include "ops/kernels.h"

namespace torchbcd::kernels {

// Constant-initialised, so that they exist before any kernel file's registration runs.
constinit Kernel<void(at::TensorIteratorBase&, const functors::Activation&)> activation;
constinit Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double)> prox_activation;
constinit Kernel<void(at::TensorIteratorBase&, const functors::Loss&, double)> prox_loss;
constinit Kernel<void(at::TensorIteratorBase&, const functors::Loss&)> loss;
constinit Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double, double, double)>
    auxiliary_update;
constinit Kernel<void(at::TensorIteratorBase&, const functors::Loss&, const functors::Activation&, double,
                      double, double)>
    output_update;

}  // namespace torchbcd::kernels
