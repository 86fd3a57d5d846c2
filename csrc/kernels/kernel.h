// A functor's loop on a device, as those see it who define it and those who call it. Nothing here depends on
// what a build has, so that the devices' files are the same text in a build with CUDA as in one without.
#pragma once

#include "functors/pass.h"

namespace at {
struct TensorIteratorBase;
}

namespace torchbcd::kernels {

struct Cpu;
struct Cuda;

/// What a functor template states of itself.
template <template <typename, typename> class Functor>
using PassOf = typename Functor<double, functors::Nothing>::Pass;

/// A functor's loop on a device. `run` is defined in instantiate.h, and instantiated by one line for each
/// functor in the files of cpu/ and cuda/.
template <template <typename, typename> class Functor, typename Device, typename Pass = PassOf<Functor>>
struct Kernel;

template <template <typename, typename> class Functor, typename Device, typename Kind, typename Alternatives,
          int inputs, int outputs, int sums, typename... Parameters>
struct Kernel<Functor, Device, functors::Pass<Kind, Alternatives, inputs, outputs, sums, Parameters...>> {
  static void run(at::TensorIteratorBase& iterator, const typename Kind::Layout& layout,
                  const typename Alternatives::Variant& chosen, const Parameters&... parameters);
};

}  // namespace torchbcd::kernels
