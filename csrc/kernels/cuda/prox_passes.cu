// The passes of activations' proxes on a GPU.
#include "kernels/cuda/entry_loops.cuh"

namespace torchbcd::kernels {

TORCHBCD_PROX_PASSES(TORCHBCD_INSTANTIATE, Cuda)

}  // namespace torchbcd::kernels
