// The device kernels: loops over functors, one implementation a device, chosen by where the data
// is.
#pragma once

#include <ATen/TensorIterator.h>
#include <c10/core/DeviceType.h>
#include <c10/util/Exception.h>

#include "functors/activations.h"
#include "functors/losses.h"

namespace torchbcd::kernels {

template <typename Signature>
class Kernel;

/// A function with one implementation a device type. The kernel files fill in their own at load
/// time.
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

// out = sigma(u)
extern Kernel<void(at::TensorIteratorBase&, const functors::Activation&)> activation;
// out = prox(a, b, gamma) of an activation, of a loss
extern Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double gamma)> prox_activation;
extern Kernel<void(at::TensorIteratorBase&, const functors::Loss&, double gamma)> prox_loss;
// out = l(v; y)
extern Kernel<void(at::TensorIteratorBase&, const functors::Loss&)> loss;
// (u', residual') = auxiliary_update(v, u, residual)
extern Kernel<void(at::TensorIteratorBase&, const functors::Activation&, double gamma, double rho,
                   double alpha)>
    auxiliary_update;
// v' = output_update(y, v, u)
extern Kernel<void(at::TensorIteratorBase&, const functors::Loss&, const functors::Activation&, double weight,
                   double gamma, double alpha)>
    output_update;

}  // namespace torchbcd::kernels
