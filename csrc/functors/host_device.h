// Markers for formulas that the host compiler and nvcc share.
//
// Nothing under functors/ includes a PyTorch header: each formula is written once, in plain C++,
// and the CPU kernels, the CUDA kernels and the tests all compile the same text. On the host it is
// always inlined, so that a loop compiled for several instruction sets carries the formula with it.
#pragma once

#if defined(__CUDACC__)
#define TORCHBCD_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define TORCHBCD_HOST_DEVICE inline __attribute__((always_inline))
#else
#define TORCHBCD_HOST_DEVICE inline
#endif

// For iterations that are too long to inline: kernels repeat a formula once for every element that a thread
// works on, and ptxas would take minutes over the copies.
#if defined(__CUDACC__)
#define TORCHBCD_HOST_DEVICE_CALL inline __host__ __device__ __noinline__
#else
#define TORCHBCD_HOST_DEVICE_CALL inline
#endif

// Before a short loop of a constant length, which has to be unrolled for the loop around it to become
// vectors.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define TORCHBCD_UNROLL _Pragma("GCC unroll 8")
#else
#define TORCHBCD_UNROLL _Pragma("unroll")
#endif
