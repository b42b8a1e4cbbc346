// Exports for native/layer_norm.py: LayerNorm of rows, read in one dtype and stored in another.

#include "arguments.h"
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

// Arguments of `layer_norm`.
struct LayerNormArgs {
    const void* x;  // (rows, depth)
    long rows;
    int depth;
    NormArgs norm;
    void* y;  // (rows, depth)
    int threads;
};

template <class From, class To>
static void layer_norm(const LayerNormArgs& a) {
    layer_norm<From, To>(a.x, a.rows, a.depth, a.norm.weight, a.norm.bias, a.norm.eps, a.y, a.threads);
}

extern "C" {
SIZE_OF(LayerNormArgs)

#define FOR(name, From, To) \
    void vitrail_layer_norm_##name(const LayerNormArgs& a) { layer_norm<From, To>(a); }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16, Float16)
FOR(float16_bfloat16, Float16, BFloat16)
#endif
}
