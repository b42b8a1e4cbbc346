// Exports for native/token_mlp.py: token-mixing MLP without transposing the tokens.
//
// Weights are the rows of the GEMMs, and a block of channels of all tokens is their panel. So tokens are read in place,
// and hidden activations stay in the cache.

#include "arguments.h"
#include "layers.h"
#include "packing.h"

// A layer over tokens: `weight` (outputs, depth); depth is the number of inputs, zero-padded to an even number.
template <class N>
struct TokenWeights {
    const typename N::Item* weight;
    const float* bias;
    int outputs, depth;
};

struct Scaling {
    const float *weight, *shift;  // of LayerNorm, per channel, padded to whole vectors
    const float* sums;            // row sums of the first layer, the factors of the shift
};

// Channels `first` to `first + held` of one image. With z = (x - mean) / std of each token,
// W1 (z w + b) = (W1 z) w + (W1 1) b: so weight and shift of the norm are applied after the GEMM.
template <class N, class X = typename N::Residual>
static void mix(const typename X::Item* x, const NormStats* stats, int tokens, int channels, int first, int held,
                TokenWeights<N> one, TokenWeights<N> two, Scaling scaling, typename X::Item* y) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const int wide = round_up(held, LANES), hidden = one.outputs;
    Item* fresh = scratch<Item>(5, (size_t)std::max(tokens, hidden) * wide);
    KPack* panel = scratch<KPack>(0, (size_t)std::max(one.depth, two.depth) * wide);
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < wide; c += LANES) {
            const Vec own = load_partial<X>(x + (long)t * channels + first + c, held - c);
            N::write(fresh + t * wide + c, (own - stats[t].mean) * stats[t].scale);
        }
    pack_values<N>(tokens, wide, [&](int t) { return fresh + t * wide; }, panel);
    gemm<N>(one.weight, one.depth, hidden, panel, one.depth, wide, 0, 1, [&](int r, int c, Vec sum) {
        sum = sum * load(scaling.weight + first + c) + load(scaling.shift + first + c) * scaling.sums[r] + one.bias[r];
        N::write(fresh + r * wide + c, N::gelu(sum));
    });
    pack_values<N>(hidden, wide, [&](int r) { return fresh + r * wide; }, panel);
    gemm<N>(two.weight, two.depth, tokens, panel, two.depth, wide, 0, 1, [&](int t, int c, Vec sum) {
        const long at = (long)t * channels + first + c;
        store_partial<X>(y + at, sum + two.bias[t] + load_partial<X>(x + at, held - c), held - c);
    });
}

// y = x + W2 gelu(W1 norm(x)^T + b1) + b2, transposed back.
template <class N>
static void token_mlp(const void* x_, int batch, int tokens, int channels, TokenWeights<N> one, TokenWeights<N> two,
                      Scaling scaling, float eps, void* y_, int threads) {
    typedef typename N::Residual X;
    const auto* x = (const typename X::Item*)x_;
    auto* y = (typename X::Item*)y_;
    const long size = (long)tokens * channels;
    std::vector<NormStats> stats((size_t)batch * tokens);
#pragma omp parallel for num_threads(threads)
    for (int i = 0; i < batch * tokens; i++) stats[i] = norm_stats_of<X>(x + (long)i * channels, channels, eps);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < batch * panels(channels); item++) {
        const int image = item / panels(channels), first = item % panels(channels) * PANEL;
        mix<N>(x + image * size, stats.data() + (long)image * tokens, tokens, channels, first,
               std::min(PANEL, channels - first), one, two, scaling, y + image * size);
    }
}

// Arguments of a layer over tokens (TokenWeights).
struct TokenLayerArgs {
    const void* weight;  // (outputs, depth)
    const float* bias;   // (outputs)
    const float* sums;   // (outputs), of the weights
    int outputs, depth;
};

// Arguments of `token_mlp`.
struct TokenMlpArgs {
    const void* x;  // (batch, tokens, channels)
    int batch, tokens, channels;
    TokenLayerArgs first, second;
    NormArgs norm;
    void* y;  // as x
    int threads;
};

template <class N>
static void token_mlp(const TokenMlpArgs& a) {
    auto weights = [](const TokenLayerArgs& l) {
        return TokenWeights<N>{(const typename N::Item*)l.weight, l.bias, l.outputs, l.depth};
    };
    token_mlp<N>(a.x, a.batch, a.tokens, a.channels, weights(a.first), weights(a.second),
                 {a.norm.weight, a.norm.bias, a.first.sums}, a.norm.eps, a.y, a.threads);
}

extern "C" {
SIZE_OF(TokenMlpArgs)

#define FOR(name, N) \
    void vitrail_token_mlp_##name(const TokenMlpArgs& a) { token_mlp<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
