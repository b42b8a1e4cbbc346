// Softmax attention of one head over one group of tokens, wherever they lie.
//
// Keys and values are packed as weights are, so both products are those of products.h; scores stay in cache.

#pragma once

#include "products.h"

template <class N>
struct Packed {
    typename N::Word* keys;    // panels of keys, step by step along the head
    typename N::Word* values;  // panels of the head, step by step along the keys
};

// Put STEP numbers into a Word.
template <class N>
static inline typename N::Word word_of(const typename N::Item* numbers) {
    typename N::Word word;
    std::memcpy(&word, numbers, sizeof(word));
    return word;
}

// `row(j)` gives the keys' numbers of token j, `width` of them.
template <class N, class Row>
static inline void pack_keys(int count, int width, Row&& row, typename N::Word* to) {
    const int steps = width / N::STEP;
    for (int p = 0; p * PANEL < count; p++) {
        const int held = std::min(PANEL, count - p * PANEL), wide = round_up(held, LANES);
        typename N::Word* panel = to + (size_t)p * PANEL * steps;
        for (int j = 0; j < wide; j++) {
            if (j >= held) {
                for (int k = 0; k < steps; k++) panel[k * wide + j] = 0;
                continue;
            }
            const typename N::Item* numbers = row(p * PANEL + j);
            for (int k = 0; k < steps; k++) panel[k * wide + j] = word_of<N>(numbers + k * N::STEP);
        }
    }
}

template <class N, class Row>
static inline void pack_values(int count, int width, Row&& row, typename N::Word* to) {
    const int steps = round_up(count, N::STEP) / N::STEP;
    const std::vector<typename N::Item> zeros(width, 0);
    for (int p = 0; p * PANEL < width; p++) {
        const int held = std::min(PANEL, width - p * PANEL), wide = round_up(held, LANES);
        typename N::Word* panel = to + (size_t)p * PANEL * steps;
        for (int k = 0; k < steps; k++, panel += wide) {
            const typename N::Item* rows[N::STEP];
            for (int s = 0; s < N::STEP; s++) {
                const int j = k * N::STEP + s;
                rows[s] = (j < count ? row(j) : zeros.data()) + p * PANEL;
            }
            for (int c = 0; c < held; c++) {
                if constexpr (N::STEP == 2) {
                    panel[c] = (uint32_t)rows[0][c] | (uint32_t)rows[1][c] << 16;
                } else {
                    panel[c] = rows[0][c];
                }
            }
            for (int c = held; c < wide; c++) panel[c] = 0;
        }
    }
}

// Mix `width` values of `count` tokens for each of them. `row(part, j)` gives token j's queries (0), keys (1) or
// values (2); `out(j)` where its answer goes, or null for padding. Queries are scaled already.
// `bias` is null or (count, round_up(count, LANES)); what lies beyond `count` in it is never read as a key.
template <class N, class Row, class Out>
static void attend(int count, int width, Row&& row, const float* bias, Out&& out) {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    const int keys = round_up(count, LANES), steps = round_up(count, N::STEP);
    Word* packed_keys = scratch<Word>(0, (size_t)round_up(count, PANEL) * width);
    Word* packed_values = scratch<Word>(1, (size_t)round_up(width, PANEL) * steps);
    float* scores = scratch<float>(2, (size_t)ROWS * keys);
    Item* shares = scratch<Item>(3, (size_t)ROWS * keys);
    Item* queries = scratch<Item>(4, (size_t)ROWS * width);
    pack_keys<N>(count, width, [&](int j) { return row(1, j); }, packed_keys);
    pack_values<N>(count, width, [&](int j) { return row(2, j); }, packed_values);

    for (int first = 0; first < count; first += ROWS) {
        const int some = std::min(ROWS, count - first);
        for (int r = 0; r < some; r++) std::memcpy(queries + r * width, row(0, first + r), width * sizeof(Item));
        product<N>(queries, width, some, packed_keys, width, count, 0, panels(count),
                   [&](int r, int j, Lanes sum) { store(scores + r * keys + j, sum); });
        float whole[ROWS];
        for (int r = 0; r < some; r++) {
            float* line = scores + r * keys;
            for (int j = count; j < keys; j++) line[j] = -1e30f;
            Lanes most = every(-1e30f);
            if (bias != nullptr) {
                const float* add = bias + (size_t)(first + r) * keys;
                for (int j = 0; j < keys; j += LANES) {
                    Lanes x = load(line + j) + load(add + j);
                    store(line + j, x);
                    most = largest(most, x);
                }
            } else {
                for (int j = 0; j < keys; j += LANES) most = largest(most, load(line + j));
            }
            const float peak = top(most);
            Lanes sum = Lanes{};
            for (int j = 0; j < keys; j += LANES) {
                Lanes x = load(line + j) - peak;
                Lanes e = x > -87.0f ? exponential(x) : Lanes{};  // what is forbidden has no share at all
                sum += e;
                N::write(shares + r * keys + j, e);
            }
            whole[r] = 1.0f / add_up(sum);
        }
        product<N>(shares, keys, some, packed_values, steps, width, 0, panels(width), [&](int r, int c, Lanes sum) {
            Item* to = out(first + r);
            if (to != nullptr) put<N>(to + c, sum * whole[r], width - c);
        });
    }
}
