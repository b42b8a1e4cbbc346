// Keys and values laid out as weights are, so that both products of an attention are those of products.h.

#pragma once

#include <utility>

#include "products.h"

// Numbers of two rows, those that one of them has after the halves of its blocks of 2 SIZE lanes changed places.
template <int SIZE, bool SECOND, int... I>
static inline Bits swap_halves(Bits a, Bits b, std::integer_sequence<int, I...>) {
    constexpr int keep = SECOND ? LANES : 0;  // the first row keeps its first halves, the second its second
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (bool(I & SIZE) == SECOND ? keep + I : SECOND ? I + SIZE : LANES + I - SIZE)...);
#else
    return __builtin_shuffle(a, b, Bits{(bool(I & SIZE) == SECOND ? keep + I : SECOND ? I + SIZE : LANES + I - SIZE)...});
#endif
}

// Turn a square of LANES x LANES numbers: swap its quarters, then the quarters of each, down to single numbers.
template <int SIZE = LANES / 2>
static inline void turn(Bits* square) {
    constexpr auto all = std::make_integer_sequence<int, LANES>();
    for (int i = 0; i < LANES; i++) {
        if (i & SIZE) continue;
        const Bits a = square[i], b = square[i + SIZE];
        square[i] = swap_halves<SIZE, false>(a, b, all);
        square[i + SIZE] = swap_halves<SIZE, true>(a, b, all);
    }
    if constexpr (SIZE > 1) turn<SIZE / 2>(square);
}

// Keys in panels, step by step along the head. `row(j)` gives the numbers of key j, `width` of them.
template <class N, class Row>
static inline void pack_keys(int count, int width, Row&& row, typename N::Word* to) {
    typedef typename N::Word Word;
    const int steps = width / N::STEP;
    for (int j = 0; j < count; j += LANES) {
        const int p = j / PANEL, held = std::min(LANES, count - j);
        const int wide = std::min(PANEL, round_up(count - p * PANEL, LANES));
        Word* first = to + (size_t)p * PANEL * steps + j % PANEL;
        const typename N::Item* rows[LANES];
        for (int i = 0; i < LANES; i++) rows[i] = row(j + std::min(i, held - 1));  // beyond the last: the last again
        int k = 0;
        for (; k + LANES <= steps; k += LANES) {
            Bits square[LANES];
            for (int i = 0; i < LANES; i++) std::memcpy(&square[i], rows[i] + k * N::STEP, sizeof(Bits));
            turn(square);
            for (int i = 0; i < LANES; i++) std::memcpy(first + (size_t)(k + i) * wide, &square[i], sizeof(Bits));
        }
        for (; k < steps; k++)
            for (int i = 0; i < LANES; i++) std::memcpy(first + (size_t)k * wide + i, rows[i] + k * N::STEP, sizeof(Word));
    }
}

// Values in panels of the head, step by step along the keys; a last step that is not full ends with zeros.
template <class N, class Row>
static inline void pack_values(int count, int width, Row&& row, typename N::Word* to) {
    const int steps = round_up(count, N::STEP) / N::STEP;
    const typename N::Item* zeros = nothing<typename N::Item>(width);
    for (int k = 0; k < steps; k++) {
        const typename N::Item* rows[N::STEP];
        for (int s = 0; s < N::STEP; s++) rows[s] = k * N::STEP + s < count ? row(k * N::STEP + s) : zeros;
        for (int c = 0; c < width; c += LANES) {
            const int p = c / PANEL, wide = std::min(PANEL, round_up(width - p * PANEL, LANES));
            typename N::Word* at = to + (size_t)p * PANEL * steps + (size_t)k * wide + c % PANEL;
            if (c + LANES <= width) {
                N::interleave(rows, c, at);
            } else {
                for (int i = 0; i < LANES; i++) at[i] = c + i < width ? N::word(rows, c + i) : 0;
            }
        }
    }
}
