#include "ops/kernels.h"

namespace torchbcd::kernels {

// Constant-initialised, so that they exist before any kernel file's registration runs.
constinit ActivationKernel activation;
constinit ActivationKernel activation_derivative;
constinit LossKernel loss;
constinit ProxActivationKernel prox_activation;
constinit ProxLossKernel prox_loss;
constinit RegularizerKernel prox_regularizer;
constinit AuxiliaryUpdateKernel auxiliary_update;
constinit OutputCentreKernel output_centre;
constinit LossUpdateKernel loss_update;
constinit CrossEntropyUpdateKernel cross_entropy_update;
constinit CrossEntropyKernel cross_entropy;

}  // namespace torchbcd::kernels
