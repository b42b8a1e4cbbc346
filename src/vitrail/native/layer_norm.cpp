// Exports for native/layer_norm.py: LayerNorm and RMSNorm of rows, read in one dtype and stored in another.

#include "arguments.h"
#include "layers.h"

// y = (x - mean) * scale * weight + shift of each row; `stats` returns mean and scale, weight and shift are padded to
// whole vectors.
template <class From, class To, class Stats>
static void normalize(const void* x_, long rows, int depth, const float* weight, const float* shift, const Stats& stats,
                      void* y_, int threads) {
    parallel_rows(rows, depth * sizeof(float), threads, [&](long start, int count) {
        for (long r = start; r < start + count; r++) {
            const typename From::Item* x = (const typename From::Item*)x_ + r * depth;
            typename To::Item* y = (typename To::Item*)y_ + r * depth;
            const NormStats by = stats(x);
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
    auto stats = [&](const typename From::Item* row) { return norm_stats_of<From>(row, a.depth, a.norm.eps); };
    normalize<From, To>(a.x, a.rows, a.depth, a.norm.weight, a.norm.bias, stats, a.y, a.threads);
}

// The same without mean: y = x / sqrt(mean(x^2) + eps) * weight.
template <class From, class To>
static void rms_norm(const LayerNormArgs& a) {
    auto stats = [&](const typename From::Item* row) {
        Vec squares = Vec{};
        for (int c = 0; c < a.depth; c += LANES) {
            const Vec some = load_partial<From>(row + c, a.depth - c);
            squares += some * some;
        }
        return NormStats{0, 1.0f / std::sqrt(add_up(squares) / a.depth + a.norm.eps)};
    };
    normalize<From, To>(a.x, a.rows, a.depth, a.norm.weight, a.norm.bias, stats, a.y, a.threads);
}

extern "C" {
SIZE_OF(LayerNormArgs)

#define FOR(name, From, To)                                                             \
    void vitrail_layer_norm_##name(const LayerNormArgs& a) { layer_norm<From, To>(a); } \
    void vitrail_rms_norm_##name(const LayerNormArgs& a) { rms_norm<From, To>(a); }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16, Float16)
FOR(float16_bfloat16, Float16, BFloat16)
#endif
}
