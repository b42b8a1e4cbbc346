// What stands around a product: the norm before it, and bias, GELU and sum while the sums are still in registers.

#pragma once

#include "products.h"

// (x - mean) / sqrt(var + eps) of a row; scale and shift of LayerNorm are folded into the product that follows.
template <class N>
static inline void normalise(const typename N::Item* from, int depth, float eps, typename N::Item* to) {
    Lanes sums = Lanes{};
    int c = 0;
    for (; c + LANES <= depth; c += LANES) sums += N::read(from + c);
    float mean = add_up(sums);
    for (int i = c; i < depth; i++) mean += N::one(from[i]);
    mean /= depth;
    sums = Lanes{};
    for (c = 0; c + LANES <= depth; c += LANES) {
        Lanes d = N::read(from + c) - mean;
        sums += d * d;
    }
    float var = add_up(sums);
    for (int i = c; i < depth; i++) var += (N::one(from[i]) - mean) * (N::one(from[i]) - mean);
    const float scale = 1.0f / std::sqrt(var / depth + eps);
    for (c = 0; c + LANES <= depth; c += LANES) N::write(to + c, (N::read(from + c) - mean) * scale);
    for (; c < depth; c++) to[c] = N::round((N::one(from[c]) - mean) * scale);
}

template <class N>
static inline void normalise_rows(const typename N::Item* from, int count, int depth, float eps, typename N::Item* to) {
    for (int r = 0; r < count; r++) normalise<N>(from + (size_t)r * depth, depth, eps, to + (size_t)r * depth);
}

enum Finish { PLAIN = 0, GELU = 1, ADD = 2 };

// How many rows a thread takes at a time: a whole number of tiles, in even shares, and small enough for its cache.
static inline int rows_at_a_time(long rows, size_t bytes_of_row, int threads) {
    const long fitting = std::max<long>(ROWS, (512 << 10) / (long)bytes_of_row);
    const long shares = std::max<long>(1, (rows + fitting * threads - 1) / (fitting * threads)) * threads;
    return round_up((int)((rows + shares - 1) / shares), ROWS);
}

template <class N>
static void finish_rows(int finish, typename N::Item* y, long ldy, const float* bias, const typename N::Item* add,
                        long ldadd, int outputs, const typename N::Item* rows, long stride, int count,
                        const typename N::Word* packed, int depth, int first, int last) {
    auto biased = [&](int c, Lanes sum) { return bias == nullptr ? sum : sum + load(bias + c); };
    if (finish == GELU) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, N::gelu(biased(c, sum)), outputs - c);
        });
    } else if (finish == ADD) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, biased(c, sum) + get<N>(add + r * ldadd + c, outputs - c), outputs - c);
        });
    } else {
        product<N>(rows, stride, count, packed, depth, outputs, first, last,
                   [&](int r, int c, Lanes sum) { put<N>(y + r * ldy + c, biased(c, sum), outputs - c); });
    }
}
