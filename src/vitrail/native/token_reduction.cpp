// Exports for native/token_reduction.py: similar tokens merged, and tokens kept by the attention of the class token.

#include <limits>
#include <numeric>

#include "arguments.h"
#include "gemm.h"

// Queries, keys and values of a batch, (batch, tokens, 3, heads, wide); the first `width` channels of a head are its
// own.
template <class N>
struct HeadRows {
    const typename N::Item* qkv;
    int tokens, heads, wide, width;

    const typename N::Item* of(int image, int token, int part, int head) const {
        return qkv + ((((long)image * tokens + token) * 3 + part) * heads + head) * wide;
    }
};

// What a reduction changes: the tokens (batch, tokens, channels), the number of places of each, the token of each
// place.
template <class X>
struct TokenSet {
    const typename X::Item* x;
    const float* sizes;
    const long* source;
    typename X::Item* y;
    float* fewer_sizes;
    long* fewer_source;
    int channels, places;
};

// target: new token of each token. y_m = sum w_n x_n / sum w_n over the tokens n with target m.
template <class X>
static void reduce_tokens(const TokenSet<X>& set, int image, int tokens, int left, const int* target,
                          const float* weights) {
    const int channels = set.channels, pitch = round_up(channels, LANES);
    float* total = scratch<float>(3, left);
    float* sums = scratch<float>(4, (size_t)left * pitch);
    float* sizes = set.fewer_sizes + (long)image * left;
    std::fill(total, total + left, 0.0f);
    std::fill(sizes, sizes + left, 0.0f);
    std::fill(sums, sums + (size_t)left * pitch, 0.0f);
    for (int n = 0; n < tokens; n++) {
        total[target[n]] += weights[n];
        sizes[target[n]] += set.sizes[(long)image * tokens + n];
    }
    for (int n = 0; n < tokens; n++) {
        const typename X::Item* from = set.x + ((long)image * tokens + n) * channels;
        float* to = sums + (size_t)target[n] * pitch;
        const Vec share = broadcast(weights[n] / total[target[n]]);
        for (int c = 0; c < channels; c += LANES)
            store(to + c, load(to + c) + share * load_partial<X>(from + c, channels - c));
    }
    typename X::Item* y = set.y + (long)image * left * channels;
    for (int m = 0; m < left; m++)
        for (int c = 0; c < channels; c += LANES)
            store_partial<X>(y + (long)m * channels + c, load(sums + (size_t)m * pitch + c), channels - c);
    for (int p = 0; p < set.places; p++)
        set.fewer_source[(long)image * set.places + p] = target[set.source[(long)image * set.places + p]];
}

// Mean of the keys over heads, of length 1; padded to whole vectors.
template <class N>
static void unit_keys(const HeadRows<N>& rows, int image, int pitch, float* to) {
    for (int n = 0; n < rows.tokens; n++, to += pitch) {
        Vec squares = Vec{};
        for (int c = 0; c < pitch; c += LANES) {
            Vec sum = Vec{};
            for (int h = 0; h < rows.heads; h++) sum += load_partial<N>(rows.of(image, n, 1, h) + c, rows.width - c);
            sum = sum / broadcast((float)rows.heads);
            squares += sum * sum;
            store(to + c, sum);
        }
        const Vec length = broadcast(std::max(std::sqrt(add_up(squares)), 1e-12f));
        for (int c = 0; c < pitch; c += LANES) store(to + c, load(to + c) / length);
    }
}

// Bipartite soft matching: each even token draws an edge to its most similar odd token, the best `removed` edges merge.
template <class N>
static void match(const HeadRows<N>& rows, int image, int prefix, int removed, int* target) {
    const int pitch = round_up(rows.width, LANES), evens = (rows.tokens + 1) / 2, odds = rows.tokens / 2;
    const int columns = round_up(odds, LANES), first_even = (prefix + 1) / 2, first_odd = prefix / 2;
    float* metric = scratch<float>(0, (size_t)rows.tokens * pitch);
    float* across = scratch<float>(1, (size_t)pitch * columns);  // odd tokens as columns
    float* scores = scratch<float>(2, columns);
    unit_keys(rows, image, pitch, metric);
    std::fill(across, across + (size_t)pitch * columns, 0.0f);
    for (int b = 0; b < odds; b++)
        for (int c = 0; c < rows.width; c++) across[(size_t)c * columns + b] = metric[(size_t)(2 * b + 1) * pitch + c];
    std::vector<float> best(evens, -std::numeric_limits<float>::infinity());
    std::vector<int> partner(evens, 0), order;
    for (int a = first_even; a < evens; a++) {
        const float* own = metric + (size_t)2 * a * pitch;
        for (int b = 0; b < columns; b += LANES) {
            Vec sum = Vec{};
            for (int c = 0; c < rows.width; c++) sum += broadcast(own[c]) * load(across + (size_t)c * columns + b);
            store(scores + b, sum);
        }
        for (int b = first_odd; b < odds; b++)
            if (scores[b] > best[a] || scores[b] != scores[b]) best[a] = scores[b], partner[a] = b;
        if (best[a] != best[a]) best[a] = std::numeric_limits<float>::infinity();  // NaN cannot be sorted
        order.push_back(a);
    }
    std::stable_sort(order.begin(), order.end(), [&](int one, int other) { return best[one] > best[other]; });
    std::vector<char> goes(rows.tokens, 0);
    for (int i = 0; i < removed; i++) goes[2 * order[i]] = 1;
    for (int n = 0, place = 0; n < rows.tokens; n++) target[n] = goes[n] ? -1 : place++;
    for (int i = 0; i < removed; i++) target[2 * order[i]] = target[2 * partner[order[i]] + 1];
}

template <class N, class X = typename N::Residual>
static void merge_tokens(const HeadRows<N>& rows, int batch, int prefix, int removed, const TokenSet<X>& set,
                         int threads) {
#pragma omp parallel for num_threads(threads)
    for (int image = 0; image < batch; image++) {
        std::vector<int> target(rows.tokens);
        match(rows, image, prefix, removed, target.data());
        reduce_tokens(set, image, rows.tokens, rows.tokens - removed, target.data(),
                      set.sizes + (long)image * rows.tokens);
    }
}

// Attention of the first token to all, mean over heads; its queries are scaled already.
template <class N>
static void class_attention(const HeadRows<N>& rows, int image, float* shares, float* scores) {
    std::fill(shares, shares + rows.tokens, 0.0f);
    for (int h = 0; h < rows.heads; h++) {
        const typename N::Item* query = rows.of(image, 0, 0, h);
        float most = -std::numeric_limits<float>::infinity(), sum = 0;
        for (int n = 0; n < rows.tokens; n++) {
            Vec products = Vec{};
            for (int c = 0; c < rows.width; c += LANES)
                products += load_partial<N>(query + c, rows.width - c) *
                            load_partial<N>(rows.of(image, n, 1, h) + c, rows.width - c);
            scores[n] = add_up(products);
            most = std::max(most, scores[n]);
        }
        for (int n = 0; n < rows.tokens; n++) sum += scores[n] = std::exp(scores[n] - most);
        for (int n = 0; n < rows.tokens; n++) shares[n] += scores[n] / sum / rows.heads;
    }
}

// The `kept` cells that the class token attends to most stay; the others become one token, weighted by that attention.
template <class N, class X = typename N::Residual>
static void keep_tokens(const HeadRows<N>& rows, int batch, int prefix, int kept, const TokenSet<X>& set, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int image = 0; image < batch; image++) {
        float* shares = scratch<float>(0, rows.tokens);
        class_attention(rows, image, shares, scratch<float>(1, rows.tokens));
        std::vector<float> key(shares, shares + rows.tokens);
        for (float& each : key)
            if (each != each) each = std::numeric_limits<float>::infinity();  // NaN cannot be sorted
        std::vector<int> order(rows.tokens - prefix), target(rows.tokens);
        std::iota(order.begin(), order.end(), prefix);
        std::stable_sort(order.begin(), order.end(), [&](int one, int other) { return key[one] > key[other]; });
        std::vector<char> stays(rows.tokens, 0);
        std::fill(stays.begin(), stays.begin() + prefix, 1);
        for (int i = 0; i < kept; i++) stays[order[i]] = 1;
        const int left = prefix + kept + 1;
        for (int n = 0, place = 0; n < rows.tokens; n++) {
            target[n] = stays[n] ? place++ : left - 1;
            if (stays[n]) shares[n] = 1;
        }
        reduce_tokens(set, image, rows.tokens, left, target.data(), shares);
    }
}

// Arguments of `merge_tokens` and `keep_tokens`.
struct ReduceTokensArgs {
    const void* qkv;  // (batch, tokens, 3, heads, wide), compared in the first `width` channels of a head
    int batch, tokens, heads, wide, width;
    int prefix;          // first tokens, which stay
    int number;          // pairs to merge, or cells to keep
    const void* x;       // (batch, tokens, channels)
    const float* sizes;  // (batch, tokens)
    const long* source;  // (batch, places)
    void* y;             // (batch, left, channels)
    float* fewer_sizes;  // (batch, left)
    long* fewer_source;  // (batch, places)
    int channels, places;
    int threads;
};

template <class N>
static HeadRows<N> head_rows(const ReduceTokensArgs& a) {
    return {(const typename N::Item*)a.qkv, a.tokens, a.heads, a.wide, a.width};
}

template <class N, class X = typename N::Residual>
static TokenSet<X> token_set(const ReduceTokensArgs& a) {
    return {(const typename X::Item*)a.x,
            a.sizes,
            a.source,
            (typename X::Item*)a.y,
            a.fewer_sizes,
            a.fewer_source,
            a.channels,
            a.places};
}

template <class N>
static void merge_tokens(const ReduceTokensArgs& a) {
    merge_tokens<N>(head_rows<N>(a), a.batch, a.prefix, a.number, token_set<N>(a), a.threads);
}

template <class N>
static void keep_tokens(const ReduceTokensArgs& a) {
    keep_tokens<N>(head_rows<N>(a), a.batch, a.prefix, a.number, token_set<N>(a), a.threads);
}

extern "C" {
SIZE_OF(ReduceTokensArgs)

#define FOR(name, N)                                                                    \
    void vitrail_merge_tokens_##name(const ReduceTokensArgs& a) { merge_tokens<N>(a); } \
    void vitrail_keep_tokens_##name(const ReduceTokensArgs& a) { keep_tokens<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
