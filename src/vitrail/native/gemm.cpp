// Exports for native/gemm.py: GEMMs with packed weights in fp32 and, if supported, in bf16 with a residual in fp16. The
// suffix of a linear layer is the dtype of its input and, if different, of its output; other functions have the compute
// dtype.

#include "gemm_layer.h"
#include "packing.h"
#include "parallel_for.h"

// Arguments of `cast`.
struct CastArgs {
    const void* x;
    long count;
    void* y;
    int threads;
};

// Cast numbers; fp16 saturates.
template <class From, class To>
static void cast(const CastArgs& a) {
    const auto* x = (const typename From::Item*)a.x;
    auto* y = (typename To::Item*)a.y;
    parallel_runs(a.count / LANES, LANES * sizeof(float), 64 << 10, a.threads, [&](long start, int count) {
        for (long at = start * LANES; at < (start + count) * LANES; at += LANES) To::write(y + at, From::read(x + at));
    });
    for (long at = a.count / LANES * LANES; at < a.count; at++) y[at] = To::round(From::one(x[at]));
}

extern "C" {
int vitrail_panel() { return PANEL; }
int vitrail_lanes() { return LANES; }
// Choose the block sizes of this library for an L2 cache of so many bytes; 0 keeps them. Returns the size of the cache.
long vitrail_set_l2(long bytes) {
    if (bytes > 0) block_sizes() = BlockSizes::of(bytes);
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
        pack_strip(
            strip, outputs, steps, [=](int j) { return j < outputs ? rows + (size_t)j * steps : zeros; }, packed);
}

SIZE_OF(CastArgs)
SIZE_OF(LinearArgs)
SIZE_OF(MlpArgs)
SIZE_OF(PostNormMlpArgs)

#define LINEAR(name, N, From, To) \
    void vitrail_linear_##name(const LinearArgs& a) { linear<From, To, LinearWeights<N>>(a); }
#define MLP(name, N, X)                                                        \
    void vitrail_mlp_##name(const MlpArgs& a) { mlp<X, LinearWeights<N>>(a); } \
    void vitrail_post_norm_mlp_##name(const PostNormMlpArgs& a) { post_norm_mlp<X, LinearWeights<N>>(a); }

LINEAR(float32, Float32, Float32, Float32)
MLP(float32, Float32, Float32)
#if defined(__AVX512BF16__)
LINEAR(bfloat16, BFloat16, BFloat16, BFloat16)
LINEAR(float16, BFloat16, Float16, Float16)
LINEAR(float16_bfloat16, BFloat16, Float16, BFloat16)
LINEAR(bfloat16_float16, BFloat16, BFloat16, Float16)
MLP(bfloat16, BFloat16, Float16)

#define CAST(name, From, To) \
    void vitrail_cast_##name(const CastArgs& a) { cast<From, To>(a); }

CAST(float32_bfloat16, Float32, BFloat16)
CAST(float32_float16, Float32, Float16)
CAST(bfloat16_float16, BFloat16, Float16)
CAST(float16_bfloat16, Float16, BFloat16)
#endif
}
