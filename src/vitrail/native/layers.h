// What stands behind a product, while its sums are still in registers: bias, GELU and sum. norms.h has what stands before.

#pragma once

#include "norms.h"

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
    if (finish == GELU) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, N::gelu(sum + load(bias + c)), outputs - c);
        });
    } else if (finish == ADD) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, sum + load(bias + c) + get<N>(add + r * ldadd + c, outputs - c), outputs - c);
        });
    } else {
        product<N>(rows, stride, count, packed, depth, outputs, first, last,
                   [&](int r, int c, Lanes sum) { put<N>(y + r * ldy + c, sum + load(bias + c), outputs - c); });
    }
}
