// Fused attention branch within groups of tokens, generic over the weight format (gemm_layer.h).

#pragma once

#include "attention.h"
#include "gemm_layer.h"
#include "parallel_for.h"
#include "token_groups.h"

// Bias and mask of the scores of `count` keys. kinds (groups) is the index of each group into bias (kinds, heads,
// count, round_up(count, LANES)), which is -1e30 for padding keys. If both are null, only padding keys are masked.
struct BiasAndMask {
    const int count, keys, heads;
    const int32_t* kinds;
    const float* bias;
    std::vector<float> plain;
    BiasAndMask(int count, int heads, const int32_t* kinds, const float* bias)
        : count(count), keys(round_up(count, LANES)), heads(heads), kinds(kinds), bias(bias), plain(keys, 0.0f) {
        std::fill(plain.begin() + count, plain.end(), -1e30f);
    }
    RowBias of(int group, int head) const {
        if (bias == nullptr) return {plain.data(), 0};
        return {bias + ((size_t)kinds[group] * heads + head) * count * keys, keys};
    }
};

// Input and output, (batch, tokens, heads, width), in X; and padding (3, heads, width), in N.
template <class X, class N>
struct Stream {
    const typename X::Item* x;
    const typename N::Item* padding;
    typename X::Item* y;
    int heads, width;
};

// y = x + attention(norm(x) Wqkv + b) Wproj + b within groups, blocked over groups: only x and y leave the cache.
// Each token has exactly one slot, so y may alias x.
template <class Weights, class N = typename Weights::Numbers, class X = typename N::Residual>
static void branch(const Stream<X, N>& stream, const TokenGroups& token_groups, const BiasAndMask& addends,
                   const Weights& qkv, const Weights& proj, float eps, int threads) {
    typedef typename N::Item Item;
    const int heads = stream.heads, width = stream.width, dim = heads * width, count = token_groups.count;
    const typename X::Item* x = stream.x;
    typename X::Item* y = stream.y;
    parallel_runs(token_groups.all(), count * dim * sizeof(Item), Weights::ROOM, threads, [&](long start, int some) {
        const int rows = some * count;
        long* places = scratch<long>(0, rows);
        Item* made = scratch<Item>(6, (size_t)rows * 3 * dim);
        const auto* empty = nothing<typename X::Item>(dim);
        token_groups.places(start, some, places);
        auto row = [=](int r) {
            const long soon = places[std::min(r + 8, rows - 1)];
            for (int c = 0; c < dim && soon >= 0; c += 64 / sizeof(Item)) __builtin_prefetch(x + soon * dim + c);
            return places[r] < 0 ? empty : x + places[r] * dim;
        };
        qkv.multiply(qkv.template ready<X>(row, rows, eps), rows, 0, panels(3 * dim), [=](int r, int c, Vec sum) {
            store_partial<N>(made + (size_t)r * 3 * dim + c, sum, 3 * dim - c);
        });
        for (int r = 0; r < rows; r++)
            if (places[r] < 0) std::memcpy(made + (size_t)r * 3 * dim, stream.padding, 3 * dim * sizeof(Item));
        Item* mixed = scratch<Item>(5, (size_t)rows * dim);  // reuses the buffer of the normalised rows
        for (int item = 0; item < some * heads; item++) {
            const int head = item % heads;
            const size_t at = (size_t)(item / heads) * count * dim;
            attend<N>(count, width, {made + 3 * at + head * width, 3L * dim}, dim,
                      addends.of((start + item / heads) % token_groups.groups, head), {mixed + at + head * width, dim});
        }
        const auto ready =
            proj.template ready<N>([=](int r) { return (const Item*)mixed + (size_t)r * dim; }, rows, NO_NORM);
        proj.multiply(ready, rows, 0, panels(dim), [=](int r, int c, Vec sum) {
            if (places[r] < 0) return;
            const size_t at = places[r] * dim + c;
            store_partial<X>(y + at, sum + load_partial<X>(x + at, dim - c), dim - c);
        });
    });
}

// Arguments of `branch`.
struct BranchArgs {
    const void* x;  // (batch, tokens, heads, width)
    int batch, tokens, heads, width;
    GroupsArgs groups;
    WeightsArgs qkv, proj;
    float eps;  // of the norm
    void* y;    // as x
    int threads;
};

template <class Weights>
static void branch(const BranchArgs& a) {
    typedef typename Weights::Numbers N;
    typedef typename N::Residual X;
    const GroupsArgs& g = a.groups;
    branch<Weights>(
        {(const typename X::Item*)a.x, (const typename N::Item*)g.padding, (typename X::Item*)a.y, a.heads, a.width},
        {a.batch, a.tokens, g.slots, g.groups, g.count}, {g.count, a.heads, g.kinds, g.bias}, Weights::of(a.qkv),
        Weights::of(a.proj), a.eps, a.threads);
}
