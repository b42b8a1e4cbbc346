// Packing of keys and values like weights, so that both GEMMs of attention are those of gemm.h.

#pragma once

#include <utility>

#include "gemm.h"

// One step of a register transpose: one of two rows after swapping halves of their blocks of 2 SIZE lanes.
template <int SIZE, bool SECOND, int... I>
static inline VecU32 swap_halves(VecU32 a, VecU32 b, std::integer_sequence<int, I...>) {
    constexpr int drop_scale = SECOND ? LANES : 0;  // the first row keeps its first halves, the second its second
#if defined(__clang__)
    return __builtin_shufflevector(a, b,
                                   (bool(I & SIZE) == SECOND ? drop_scale + I
                                    : SECOND                 ? I + SIZE
                                                             : LANES + I - SIZE)...);
#else
    return __builtin_shuffle(a, b,
                             VecU32{(bool(I & SIZE) == SECOND ? drop_scale + I
                                     : SECOND                 ? I + SIZE
                                                              : LANES + I - SIZE)...});
#endif
}

// Transpose a block of LANES x LANES values: swap its quadrants, then those of each quadrant, recursively.
template <int SIZE = LANES / 2>
static inline void transpose(VecU32* square) {
    constexpr auto all = std::make_integer_sequence<int, LANES>();
    for (int i = 0; i < LANES; i++) {
        if (i & SIZE) continue;
        const VecU32 a = square[i], b = square[i + SIZE];
        square[i] = swap_halves<SIZE, false>(a, b, all);
        square[i + SIZE] = swap_halves<SIZE, true>(a, b, all);
    }
    if constexpr (SIZE > 1) transpose<SIZE / 2>(square);
}

// Rows in panels of PANEL columns, k-step by k-step: `row(j)` points at row j, `steps` KPacks of 32 bits each.
//
//     panel p:  k = 0: | row p*PANEL | row p*PANEL + 1 | ... |   one KPack of each row
//               k = 1: | ...                               |
//
// Rows are read LANES at a time, and `row` must return a readable row for each. Blocks of LANES x LANES words are
// transposed in registers.
template <class Row>
static inline void pack_strip(int strip, int count, int steps, Row&& row, uint32_t* to) {
    const int j = strip * LANES, p = j / PANEL, wide = std::min(PANEL, round_up(count - p * PANEL, LANES));
    uint32_t* first = to + (size_t)p * PANEL * steps + j % PANEL;
    const uint32_t* rows[LANES];
    for (int i = 0; i < LANES; i++) rows[i] = (const uint32_t*)row(j + i);
    int k = 0;
    for (; k + LANES <= steps; k += LANES) {
        VecU32 square[LANES];
        for (int i = 0; i < LANES; i++) std::memcpy(&square[i], rows[i] + k, sizeof(VecU32));
        transpose(square);
        for (int i = 0; i < LANES; i++) std::memcpy(first + (size_t)(k + i) * wide, &square[i], sizeof(VecU32));
    }
    for (; k < steps; k++)
        for (int i = 0; i < LANES; i++) std::memcpy(first + (size_t)k * wide + i, rows[i] + k, sizeof(uint32_t));
}

// Keys `(count, width)` as the columns of a GEMM; padding columns repeat the last key.
template <class N, class Row>
static inline void pack_keys(int count, int width, Row&& row, typename N::KPack* to) {
    for (int strip = 0; strip * LANES < count; strip++)
        pack_strip(strip, count, width / N::K_STEP, [&](int j) { return row(std::min(j, count - 1)); }, (uint32_t*)to);
}

// Values in panels over head_dim, k running over keys; a partial last k-step is zero-padded.
template <class N, class Row>
static inline void pack_values(int count, int width, Row&& row, typename N::KPack* to) {
    const int steps = round_up(count, N::K_STEP) / N::K_STEP;
    const typename N::Item* zeros = nothing<typename N::Item>(width);
    for (int k = 0; k < steps; k++) {
        const typename N::Item* rows[N::K_STEP];
        for (int s = 0; s < N::K_STEP; s++) rows[s] = k * N::K_STEP + s < count ? row(k * N::K_STEP + s) : zeros;
        for (int c = 0; c < width; c += LANES) {
            const int p = c / PANEL, wide = std::min(PANEL, round_up(width - p * PANEL, LANES));
            typename N::KPack* at = to + (size_t)p * PANEL * steps + (size_t)k * wide + c % PANEL;
            if (c + LANES <= width) {
                N::interleave(rows, c, at);
            } else {
                for (int i = 0; i < LANES; i++) at[i] = c + i < width ? N::word(rows, c + i) : 0;
            }
        }
    }
}
