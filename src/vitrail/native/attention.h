// Softmax attention of one head over one group of tokens, wherever they lie.

#pragma once

#include "packing.h"

constexpr int BLOCK = 2 * ROWS;  // queries at a time, so that narrow heads fill the registers

// Where a group's scores get their bias from: `stride` numbers from one query's to the next's, 0 if all have the same.
struct Addend {
    const float* at;
    long stride;
};

// The shares of R queries that have all their keys in one panel of V vectors: scores never leave the registers.
template <class N, int R, int V>
static inline void shares_of_panel(const typename N::Item* queries, int width, const typename N::Word* keys, Addend bias,
                                   typename N::Item* shares, float* whole) {
    Lanes score[R][V];
    add_products<N, R, V>(queries, width, keys, width / N::STEP, score);
    for (int r = 0; r < R; r++) {
        for (int v = 0; v < V; v++) score[r][v] += load(bias.at + r * bias.stride + v * LANES);
        Lanes most = score[r][0];
        for (int v = 1; v < V; v++) most = largest(most, score[r][v]);
        const float peak = top(most);
        Lanes sum = Lanes{};
        for (int v = 0; v < V; v++) {
            const Lanes share = N::exponential(score[r][v] - peak);
            sum += share;
            N::write(shares + (r * V + v) * LANES, share);
        }
        whole[r] = 1.0f / add_up(sum);
    }
}

template <class N, int V>
static inline void shares_of_panel(int count, const typename N::Item* queries, int width, const typename N::Word* keys,
                                   Addend bias, typename N::Item* shares, float* whole) {
    switch (count) {
        case 1: return shares_of_panel<N, 1, V>(queries, width, keys, bias, shares, whole);
        case 2: return shares_of_panel<N, 2, V>(queries, width, keys, bias, shares, whole);
        case 3: return shares_of_panel<N, 3, V>(queries, width, keys, bias, shares, whole);
        case 4: return shares_of_panel<N, 4, V>(queries, width, keys, bias, shares, whole);
        case 5: return shares_of_panel<N, 5, V>(queries, width, keys, bias, shares, whole);
        default: return shares_of_panel<N, ROWS, V>(queries, width, keys, bias, shares, whole);
    }
}

// The shares of `some` queries in any number of keys, through scores in cache.
template <class N>
static inline void shares_of_panels(int some, const typename N::Item* queries, int width, const typename N::Word* packed,
                                    int count, Addend bias, typename N::Item* shares, float* whole) {
    const int keys = round_up(count, LANES);
    float* scores = scratch<float>(2, (size_t)ROWS * keys);
    Lanes most[ROWS];
    for (int r = 0; r < some; r++) most[r] = every(-1e30f);
    product<N>(queries, width, some, packed, width, count, 0, panels(count), [&](int r, int j, Lanes sum) {
        sum += load(bias.at + r * bias.stride + j);
        most[r] = largest(most[r], sum);
        store(scores + r * keys + j, sum);
    });
    for (int r = 0; r < some; r++) {
        const float peak = top(most[r]);
        Lanes sum = Lanes{};
        for (int j = 0; j < keys; j += LANES) {
            const Lanes share = N::exponential(load(scores + r * keys + j) - peak);
            sum += share;
            N::write(shares + r * keys + j, share);
        }
        whole[r] = 1.0f / add_up(sum);
    }
}

template <class N>
static inline void shares_of(int some, const typename N::Item* queries, int width, const typename N::Word* packed,
                             int count, Addend bias, typename N::Item* shares, float* whole) {
    switch (std::min(panels(count) > 1 ? 0 : WIDE, round_up(count, LANES) / LANES)) {
        case 0: return shares_of_panels<N>(some, queries, width, packed, count, bias, shares, whole);
        case 1: return shares_of_panel<N, 1>(some, queries, width, packed, bias, shares, whole);
        case 2: return shares_of_panel<N, 2>(some, queries, width, packed, bias, shares, whole);
        case 3: return shares_of_panel<N, WIDE < 3 ? WIDE : 3>(some, queries, width, packed, bias, shares, whole);
        default: return shares_of_panel<N, WIDE>(some, queries, width, packed, bias, shares, whole);
    }
}

// Mix `width` values of `count` tokens for each of them. `row(part, j)` gives token j's queries (0), keys (1) or
// values (2); `out(j)` where its answer goes, or null for padding. Queries are scaled already.
// `bias` is (count, round_up(count, LANES)), with -1e30 for what lies beyond `count`, or one row of it for all queries.
template <class N, class Row, class Out>
static void attend(int count, int width, Row&& row, Addend bias, Out&& out) {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    const int keys = round_up(count, LANES), depth = round_up(count, N::STEP);
    Word* packed_keys = scratch<Word>(0, (size_t)round_up(count, PANEL) * width);
    Word* packed_values = scratch<Word>(1, (size_t)round_up(width, PANEL) * depth);
    Item* shares = scratch<Item>(3, (size_t)BLOCK * keys);
    Item* queries = scratch<Item>(4, (size_t)BLOCK * width);
    pack_keys<N>(count, width, [&](int j) { return row(1, j); }, packed_keys);
    pack_values<N>(count, width, [&](int j) { return row(2, j); }, packed_values);

    for (int first = 0; first < count; first += BLOCK) {
        const int some = std::min(BLOCK, count - first);
        for (int r = 0; r < some; r++) std::memcpy(queries + r * width, row(0, first + r), width * sizeof(Item));
        float whole[BLOCK];
        for (int r = 0; r < some; r += ROWS, bias.at += ROWS * bias.stride)
            shares_of<N>(std::min(ROWS, some - r), queries + r * width, width, packed_keys, count, bias,
                         shares + (size_t)r * keys, whole + r);
        product<N>(shares, keys, some, packed_values, depth, width, 0, panels(width), [&](int r, int c, Lanes sum) {
            Item* to = out(first + r);
            if (to != nullptr) put<N>(to + c, sum * whole[r], width - c);
        });
    }
}
