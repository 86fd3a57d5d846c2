// The passes of losses and regularisers on a GPU.
#include "kernels/cuda/entry_loops.cuh"

namespace torchbcd::kernels {

TORCHBCD_LOSS_PASSES(TORCHBCD_INSTANTIATE, Cuda)

}  // namespace torchbcd::kernels
