// The device kernels: loops over functors, one implementation a device, chosen by where the data is.
#pragma once

#include <ATen/TensorIterator.h>
#include <c10/core/DeviceType.h>
#include <c10/util/Exception.h>

#include "functors/activations.h"
#include "functors/losses.h"
#include "functors/regularizers.h"

namespace torchbcd::kernels {

template <typename Signature>
class Kernel;

/// A function with one implementation a device type. The kernel files fill in their own at load time.
template <typename... Arguments>
class Kernel<void(at::TensorIteratorBase&, Arguments...)> {
 public:
  using Function = void (*)(at::TensorIteratorBase&, Arguments...);

  struct OnCPU {
    OnCPU(Kernel& kernel, Function function) { kernel.cpu_ = function; }
  };
  struct OnCUDA {
    OnCUDA(Kernel& kernel, Function function) { kernel.cuda_ = function; }
  };

  void operator()(at::TensorIteratorBase& iterator, Arguments... arguments) {
    const bool on_cuda = iterator.device_type() == c10::DeviceType::CUDA;
    const Function function = on_cuda ? cuda_ : cpu_;
    TORCH_CHECK_NOT_IMPLEMENTED(
        function != nullptr && (on_cuda || iterator.device_type() == c10::DeviceType::CPU),
        "torchbcd: this build has no kernels for ", iterator.device_type(), " tensors");
    function(iterator, arguments...);
  }

 private:
  Function cpu_ = nullptr;
  Function cuda_ = nullptr;
};

/// What a row kernel needs beyond an iterator over the first columns of its matrices.
struct RowLayout {
  int64_t classes;
  int64_t out_stride, target_stride, centre_stride;
};

using ActivationKernel = Kernel<void(at::TensorIteratorBase&, const functors::Activation&)>;
using LossKernel = Kernel<void(at::TensorIteratorBase&, const functors::Loss&)>;
using ProxActivationKernel = Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double gamma)>;
using ProxLossKernel = Kernel<void(at::TensorIteratorBase&, const functors::Loss&, double gamma)>;
using RegularizerKernel = Kernel<void(at::TensorIteratorBase&, const functors::Regularizer&, double t)>;
using AuxiliaryUpdateKernel = Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double gamma,
                                          double rho, double alpha)>;
using OutputCentreKernel =
    Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double gamma, double alpha)>;
using LossUpdateKernel = Kernel<void(at::TensorIteratorBase&, const functors::Loss&,
                                     const functors::Regularizer&, double weight, double curvature)>;
using CrossEntropyUpdateKernel = Kernel<void(at::TensorIteratorBase&, const RowLayout&,
                                             const functors::Regularizer&, double weight, double curvature)>;
using CrossEntropyKernel = Kernel<void(at::TensorIteratorBase&, const RowLayout&)>;

// Summed kernels run over contiguous data in chunks of a given length, whatever the number of threads, and
// write each chunk's sums to `partial`, (chunks, sums), in float64. A chunk is kSumChunk elements, or a row.
struct SumLayout {
  int64_t chunk;
  double* partial;
};
constexpr int64_t kSumChunk = 4096;

using SumKernel = Kernel<void(at::TensorIteratorBase&, const SumLayout&)>;
using ScaledSumKernel = Kernel<void(at::TensorIteratorBase&, const SumLayout&, double scale)>;
using RelaxedResidualKernel =
    Kernel<void(at::TensorIteratorBase&, const SumLayout&, double keep, double gain)>;
using BoxKernel =
    Kernel<void(at::TensorIteratorBase&, const SumLayout&, const functors::Activation&, double eps)>;
using ImageStepKernel = Kernel<void(at::TensorIteratorBase&, const SumLayout&, const functors::Activation&,
                                    double omega, double step, double eps)>;
using JointStepKernel = Kernel<void(at::TensorIteratorBase&, const SumLayout&, const functors::Activation&,
                                    double omega, double step, double eps, double ratio)>;
using StateDirectionKernel =
    Kernel<void(at::TensorIteratorBase&, const SumLayout&, const functors::Activation&, double ratio)>;
using StateMoveKernel = Kernel<void(at::TensorIteratorBase&, const SumLayout&, const functors::Activation&,
                                    double keep, const double* scale)>;

/// What a state block's move along a line knows beside the elementwise data, for n rows: contiguous matrices
/// with `outputs` columns, and W with a row for each unit.
struct LineMoveRows {
  const void* residual;  // R, (n, outputs)
  const void* product;   // (J z) W^T, (n, outputs)
  const void* weight;    // W^T, (units, outputs)
  int64_t units, outputs;
  double ratio, keep, scale;
  double* slack_sums;  // (n), out
  double* sums;        // (n), out
};
using LineMoveKernel =
    Kernel<void(at::TensorIteratorBase&, const LineMoveRows&, const functors::Activation&)>;

// out = sigma(u), out = sigma'(u)
extern ActivationKernel activation;
extern ActivationKernel activation_derivative;
// out = l(v; y), for a loss with a value an entry
extern LossKernel loss;
// out = prox(a, b, gamma) of an activation, of a loss, of t times a regulariser
extern ProxActivationKernel prox_activation;
extern ProxLossKernel prox_loss;
extern RegularizerKernel prox_regularizer;
// (u', residual') = AuxiliaryUpdate(v, u, residual)
extern AuxiliaryUpdateKernel auxiliary_update;
// c = OutputCentre(v, u), v' = LossUpdate(y, c, row_weight)
extern OutputCentreKernel output_centre;
extern LossUpdateKernel loss_update;
// The same and the value for cross-entropy; the iterator runs over rows: (out, target, centre, row_weight),
// (out, target, centre).
extern CrossEntropyUpdateKernel cross_entropy_update;
extern CrossEntropyKernel cross_entropy;
// The functors of functors/summed.h
extern SumKernel sum_of_squares;
extern SumKernel difference;
extern ScaledSumKernel extrapolated_difference;
extern ScaledSumKernel residual_step;
extern BoxKernel preimage_projection;
extern ImageStepKernel image_step;
extern JointStepKernel joint_step;
extern RelaxedResidualKernel relaxed_residual;
extern StateDirectionKernel state_direction;
extern StateMoveKernel state_move;
// The same with the check of L and the halvings, row by row, for piecewise linear activations: (slack,
// change) from (u, v, z, s). On the CPU alone, where the few units that cross a kink can be dealt with one by
// one.
extern LineMoveKernel line_move;

}  // namespace torchbcd::kernels
