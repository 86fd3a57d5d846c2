// Markers for formulas that the host compiler and nvcc share.
//
// Nothing under functors/ includes a PyTorch header: each formula is written once, in plain C++,
// and the CPU kernels, the CUDA kernels and the tests all compile the same text.
#pragma once

#if defined(__CUDACC__)
#define TORCHBCD_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TORCHBCD_HOST_DEVICE inline
#endif
