// Exports for native/cross_covariance.py: attention between the channels of each head (XCiT).
//
// The map of a head is (width, width): one product over all tokens makes it, one product of each token applies it.

#include "arguments.h"
#include "attention.h"

// Arguments of `covariance_attend`.
struct CovarianceArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    const float* temperature;  // (heads)
    void* y;                   // (batch, tokens, heads, width)
    int threads;
};

// Factor 1 / |x| of each channel over `count` tokens `stride` apart, in whole vectors.
template <class N>
static inline void inverse_lengths(const typename N::Item* x, int count, long stride, int width, float* to) {
    for (int c = 0; c < width; c += LANES) {
        Vec squares = Vec{};
        for (int n = 0; n < count; n++) {
            const Vec some = load_partial<N>(x + n * stride + c, width - c);
            squares += some * some;
        }
        for (int i = 0; i < LANES; i++) to[c + i] = 1.0f / std::max(std::sqrt(squares[i]), 1e-12f);
    }
}

// y^T = softmax(temperature q^T k / (|q| |k|^T)) v^T of one head, with q, k and v (tokens, width).
template <class N>
static void attend_channels(const typename N::Item* q, long stride, int tokens, int dim, int width, float temperature,
                            typename N::Item* y) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const Item *k = q + dim, *v = q + 2 * dim;
    const int held = round_up(tokens, N::AMX ? LANES : N::K_STEP), steps = round_up(held, N::K_STEP) / N::K_STEP;
    const int inputs = steps * N::K_STEP, wide = round_up(width, LANES);
    KPack* keys = scratch<KPack>(1, (size_t)round_up(width, PANEL) * inputs);
    KPack* maps = scratch<KPack>(0, (size_t)round_up(width, PANEL) * wide);
    Item* channels = scratch<Item>(5, (size_t)width * inputs);  // q^T
    Item* probs = scratch<Item>(3, (size_t)width * wide);
    float* scores = scratch<float>(2, (size_t)width * wide);
    float *rows = scratch<float>(7, 2 * (size_t)wide), *columns = rows + wide;
    auto token = [&](const Item* from, int n) { return n < tokens ? from + n * stride : nothing<Item>(width); };

    pack_values<N>(held, width, [&](int n) { return token(k, n); }, keys);
    for (int n = 0; n < inputs; n++) {
        const Item* row = token(q, n);
        for (int c = 0; c < width; c++) channels[(size_t)c * inputs + n] = row[c];
    }
    inverse_lengths<N>(q, tokens, stride, width, rows);
    inverse_lengths<N>(k, tokens, stride, width, columns);
    gemm<N>(channels, inputs, width, keys, inputs, width, 0, panels(width), [&](int r, int c, Vec score) {
        store(scores + (size_t)r * wide + c, score * load(columns + c) * (rows[r] * temperature));
    });
    for (int r = 0; r < width; r++) {
        float* row = scores + (size_t)r * wide;
        softmax_row<N>(row, width, wide);
        for (int c = 0; c < wide; c += LANES) N::write(probs + (size_t)r * wide + c, load(row + c));
    }
    pack_keys<N>(width, width, [&](int r) { return probs + (size_t)r * wide; }, maps);
    gemm<N>(v, stride, tokens, maps, width, width, 0, panels(width),
            [&](int n, int c, Vec sum) { store_partial<N>(y + (long)n * dim + c, sum, width - c); });
}

template <class N>
static void covariance_attend(const CovarianceArgs& a) {
    typedef typename N::Item Item;
    const int dim = a.heads * a.width;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)a.batch * a.heads; item++) {
        const long first = item / a.heads * a.tokens, head = item % a.heads;
        attend_channels<N>((const Item*)a.qkv + first * 3 * dim + head * a.width, 3L * dim, a.tokens, dim, a.width,
                           a.temperature[head], (Item*)a.y + first * dim + head * a.width);
    }
}

extern "C" {
SIZE_OF(CovarianceArgs)

#define FOR(name, N) \
    void vitrail_covariance_attend_##name(const CovarianceArgs& a) { covariance_attend<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
