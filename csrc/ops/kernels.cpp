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
constinit SumKernel sum_of_squares;
constinit SumKernel difference;
constinit ScaledSumKernel extrapolated_difference;
constinit ScaledSumKernel residual_step;
constinit BoxKernel preimage_projection;
constinit ImageStepKernel image_step;
constinit JointStepKernel joint_step;
constinit RelaxedResidualKernel relaxed_residual;
constinit StateDirectionKernel state_direction;
constinit StateMoveKernel state_move;
constinit LineMoveKernel line_move;

}  // namespace torchbcd::kernels
