// Exports for native/layer_norm.py: LayerNorm of rows, read in one dtype and stored in another.

#include "layers.h"

// y = (x - mean) / sqrt(var + eps) * weight + shift of each row; both are padded to whole vectors.
template <class From, class To>
static void layer_norm(const void* x_, long rows, int depth, const float* weight, const float* shift, float eps,
                       void* y_, int threads) {
    parallel_rows(rows, depth * sizeof(float), threads, [&](long start, int count) {
        for (long r = start; r < start + count; r++) {
            const typename From::Item* x = (const typename From::Item*)x_ + r * depth;
            typename To::Item* y = (typename To::Item*)y_ + r * depth;
            const NormStats by = norm_stats_of<From>(x, depth, eps);
            for (int c = 0; c < depth; c += LANES) {
                const Vec z = (load_partial<From>(x + c, depth - c) - by.mean) * by.scale;
                store_partial<To>(y + c, z * load(weight + c) + load(shift + c), depth - c);
            }
        }
    });
}

extern "C" {
#define FOR(name, From, To)                                                                                      \
    void vitrail_layer_norm_##name(const void* x, long rows, int depth, const float* weight, const float* shift, \
                                   float eps, void* y, int threads) {                                            \
        layer_norm<From, To>(x, rows, depth, weight, shift, eps, y, threads);                                    \
    }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16, Float16)
FOR(float16_bfloat16, Float16, BFloat16)
#endif
}
