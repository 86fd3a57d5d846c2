// The passes of activations' values and slopes on a GPU.
#include "kernels/cuda/entry_loops.cuh"

namespace torchbcd::kernels {

TORCHBCD_ACTIVATION_PASSES(TORCHBCD_INSTANTIATE, Cuda)

}  // namespace torchbcd::kernels
