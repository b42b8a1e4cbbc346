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

// Weights of the values of each head: the softmax.
struct SoftmaxHeads {
    SoftmaxWeights of(int) const { return {}; }
};

// The same, with positions mixed in by a gate. All groups have the same positions.
template <class Item>
struct GatedHeads {
    const Item* positions;      // (heads, count, round_up(count, LANES))
    const float* content_gate;  // (heads)
    int count;
    GatedWeights<Item> of(int head) const {
        return {positions + (size_t)head * count * round_up(count, LANES), content_gate[head]};
    }
};

// Input and output, (batch, tokens, channels), in X; and padding (3, heads, width), in N.
template <class X, class N>
struct Stream {
    const typename X::Item* x;
    const typename N::Item* padding;
    typename X::Item* y;
    int heads, width;
};

// Queries and keys as they are projected.
struct PlainScores {
    template <class N>
    void operator()(typename N::Item*, int, int, int) const {}
};

// Queries and keys whose pairs of channels (2 i, 2 i + 1) are turned by an angle of their slot.
struct RotatedScores {
    const float *cos, *sin;  // (count, width): cos of each pair twice; -sin and sin of each pair
    int count;               // slots of a group

    // rows (some count, 3, heads, width)
    template <class N>
    void operator()(typename N::Item* rows, int some, int heads, int width) const {
        for (int r = 0; r < some; r++) {
            const size_t angle = (size_t)(r % count) * width;
            typename N::Item* row = rows + (size_t)r * 3 * heads * width;
            for (int head = 0; head < 2 * heads; head++)  // queries, then keys
                turn<N>(row + head * width, width, cos + angle, sin + angle);
        }
    }

    // One query or key, in place.
    template <class N>
    static inline void turn(typename N::Item* x, int width, const float* cos, const float* sin) {
        for (int c = 0; c < width; c += LANES) {
            const Vec some = load_partial<N>(x + c, width - c), by = load_partial<Float32>(cos + c, width - c);
            const Vec across = load_partial<Float32>(sin + c, width - c);
            store_partial<N>(x + c, some * by + swap_pairs(some) * across, width - c);
        }
    }

    static inline Vec swap_pairs(Vec x) {
        VecI32 places;
        for (int i = 0; i < LANES; i++) places[i] = i ^ 1;
        return __builtin_shuffle(x, places);
    }
};

// Queries and keys of unit length, queries times the scale of their head: scores are scaled cosines.
struct CosineScores {
    const float* scales;  // (heads)

    // rows (count, 3, heads, width)
    template <class N>
    void operator()(typename N::Item* rows, int count, int heads, int width) const {
        const int dim = heads * width;
        for (typename N::Item* row = rows; row < rows + (size_t)count * 3 * dim; row += 3 * dim)
            for (int head = 0; head < heads; head++) {
                set_length<N>(row + head * width, width, scales[head]);
                set_length<N>(row + dim + head * width, width, 1);
            }
    }

    template <class N>
    static inline void set_length(typename N::Item* x, int width, float length) {
        Vec squares = Vec{};
        for (int c = 0; c < width; c += LANES) {
            const Vec part = load_partial<N>(x + c, width - c);
            squares += part * part;
        }
        const Vec factor = broadcast(length / std::max(std::sqrt(add_up(squares)), 1e-12f));
        for (int c = 0; c < width; c += LANES)
            store_partial<N>(x + c, load_partial<N>(x + c, width - c) * factor, width - c);
    }
};

// y = x + end(attention(norm(x) Wqkv + b) Wproj + b) within groups, blocked over groups: only x and y leave the cache.
// `eps` is that of the norm, or NO_NORM; `scores` prepares queries and keys; `head_weights` has those of the values;
// `end` is one of gemm_layer.h. Each token has exactly one slot, so y may alias x.
template <class Weights, class Scores, class HeadWeights, class End, class N = typename Weights::Numbers,
          class X = typename N::Residual>
static void branch(const Stream<X, N>& stream, const TokenGroups& token_groups, const BiasAndMask& addends,
                   const Weights& qkv, const Weights& proj, float eps, const Scores& scores,
                   const HeadWeights& head_weights, const End& end, int threads) {
    typedef typename N::Item Item;
    const int heads = stream.heads, width = stream.width, dim = heads * width, count = token_groups.count;
    const int channels = qkv.inputs;  // other than `dim` if heads are pruned
    const typename X::Item* x = stream.x;
    typename X::Item* y = stream.y;
    parallel_runs(
        token_groups.all(), count * channels * sizeof(Item), Weights::ROOM, threads, [&](long start, int some) {
            const int rows = some * count;
            long* places = scratch<long>(0, rows);
            Item* made = scratch<Item>(6, (size_t)rows * 3 * dim);
            const auto* empty = nothing<typename X::Item>(channels);
            token_groups.places(start, some, places);
            auto row = [=](int r) {
                const long soon = places[std::min(r + 8, rows - 1)];
                for (int c = 0; c < channels && soon >= 0; c += 64 / sizeof(Item))
                    __builtin_prefetch(x + soon * channels + c);
                return places[r] < 0 ? empty : x + places[r] * channels;
            };
            qkv.multiply(
                qkv.template gathered<X>(row, rows, eps), rows, 0, panels(3 * dim),
                [=](int r, int c, Vec sum) { store_partial<N>(made + (size_t)r * 3 * dim + c, sum, 3 * dim - c); });
            scores.template operator()<N>(made, rows, heads, width);
            for (int r = 0; r < rows; r++)
                if (places[r] < 0) std::memcpy(made + (size_t)r * 3 * dim, stream.padding, 3 * dim * sizeof(Item));
            Item* mixed = scratch<Item>(5, (size_t)rows * dim);  // reuses the buffer of the normalised rows
            for (int item = 0; item < some * heads; item++) {
                const int head = item % heads;
                const size_t at = (size_t)(item / heads) * count * dim;
                attend<N>(count, width, {made + 3 * at + head * width, 3L * dim}, dim,
                          addends.of((start + item / heads) % token_groups.groups, head),
                          {mixed + at + head * width, dim}, head_weights.of(head));
            }
            end.template operator()<X>(
                proj, proj.template ready<N>(mixed, rows, NO_NORM), rows, [=](int r) { return places[r]; }, x, y);
        });
}

// Arguments of `branch`.
struct BranchArgs {
    const void* x;  // (batch, tokens, channels)
    int batch, tokens, heads, width;
    GroupsArgs groups;
    WeightsArgs qkv, proj;
    float eps;  // of the norm; negative without one
    void* y;    // as x
    int threads;
};

template <class Weights, class Scores = PlainScores, class HeadWeights = SoftmaxHeads, class End = AddResult>
static void branch(const BranchArgs& a, const Scores& scores = {}, const HeadWeights& head_weights = {},
                   const End& end = {}) {
    typedef typename Weights::Numbers N;
    typedef typename N::Residual X;
    const GroupsArgs& g = a.groups;
    branch<Weights, Scores, HeadWeights, End>(
        {(const typename X::Item*)a.x, (const typename N::Item*)g.padding, (typename X::Item*)a.y, a.heads, a.width},
        {a.batch, a.tokens, g.slots, g.groups, g.count}, {g.count, a.heads, g.kinds, g.bias}, Weights::of(a.qkv),
        Weights::of(a.proj), a.eps, scores, head_weights, end, a.threads);
}

// Arguments of the branch with turned queries and keys.
struct RotatedBranchArgs {
    BranchArgs branch;
    const float* cos;  // (tokens, width)
    const float* sin;
};

template <class Weights>
static void rotated_branch(const RotatedBranchArgs& a) {
    branch<Weights>(a.branch, RotatedScores{a.cos, a.sin, a.branch.groups.count});
}

// Arguments of the branch with cosine scores and a norm at its end.
struct CosineBranchArgs {
    BranchArgs branch;
    const float* scales;  // (heads): largest score of each
    NormArgs norm;
};

template <class Weights>
static void cosine_branch(const CosineBranchArgs& a) {
    branch<Weights>(a.branch, CosineScores{a.scales}, SoftmaxHeads(), AddNormedResult::of(a.norm));
}

// Arguments of the branch with positions mixed in.
struct GatedBranchArgs {
    BranchArgs branch;
    const void* positions;      // (heads, count, round_up(count, LANES)), zero for padding keys
    const float* content_gate;  // (heads)
};

template <class Weights>
static void gated_branch(const GatedBranchArgs& a) {
    typedef typename Weights::Numbers::Item Item;
    branch<Weights>(a.branch, PlainScores(),
                    GatedHeads<Item>{(const Item*)a.positions, a.content_gate, a.branch.groups.count});
}
