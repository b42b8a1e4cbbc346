// Exports for native/gemm.py: GEMMs with packed weights in fp32 and, if supported, in bf16 with a residual in fp16. The
// suffix of a linear layer is the dtype of its input and, if different, of its output; other functions have the compute
// dtype.

#include "gemm_layer.h"
#include "packing.h"

extern "C" {
int vitrail_panel() { return PANEL; }
int vitrail_lanes() { return LANES; }
// Set the L2 size in bytes for the block sizes of this library; 0 keeps it. Returns the current size.
long vitrail_set_l2(long bytes) {
    if (bytes > 0) l2_bytes() = bytes;
    return l2_bytes();
}
int vitrail_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Pack weights `(outputs, steps)` of 32-bit words (an fp32, two bf16 or four int8 along the inputs) in panels; padding
// columns are zero.
void vitrail_pack(const uint32_t* rows, int outputs, int steps, uint32_t* packed, int threads) {
    const uint32_t* zeros = nothing<uint32_t>(steps);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int strip = 0; strip < (outputs + LANES - 1) / LANES; strip++)
        pack_strip(strip, outputs, steps, [=](int j) { return j < outputs ? rows + (size_t)j * steps : zeros; }, packed);
}

#define LINEAR(name, N, From, To)                                                                                \
    void vitrail_linear_##name(const void* x, long rows, int depth, const void* packed, const float* bias,       \
                               int outputs, void* y, const void* add, int epilogue, float eps, int threads) {    \
        const LinearWeights<N> weights = {(const N::KPack*)packed, bias, depth, outputs};                        \
        linear<From, To>(epilogue, weights, (const From::Item*)x, rows, eps, (const To::Item*)add, (To::Item*)y, \
                         threads);                                                                               \
    }
#define MLP(name, N, X)                                                                                               \
    void vitrail_mlp_##name(const void* x, long rows, int depth, const void* first, const float* bias1, int hidden,   \
                            const void* second, const float* bias2, int outputs, void* y, const void* add, float eps, \
                            int threads) {                                                                            \
        const LinearWeights<N> one = {(const N::KPack*)first, bias1, depth, hidden};                                  \
        const LinearWeights<N> two = {(const N::KPack*)second, bias2, hidden, outputs};                               \
        mlp(one, two, (const X::Item*)x, rows, eps, (const X::Item*)add, (X::Item*)y, threads);                       \
    }

LINEAR(float32, Float32, Float32, Float32)
MLP(float32, Float32, Float32)
#if defined(__AVX512BF16__)
LINEAR(bfloat16, BFloat16, BFloat16, BFloat16)
LINEAR(float16, BFloat16, Float16, Float16)
LINEAR(float16_bfloat16, BFloat16, Float16, BFloat16)
LINEAR(bfloat16_float16, BFloat16, BFloat16, Float16)
MLP(bfloat16, BFloat16, Float16)
#endif
}
