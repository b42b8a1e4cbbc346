// AMX GEMM: accumulators in up to 2 x 2 tile registers, so that each loaded operand is used twice.

#pragma once

#include "dtypes.h"

// Rows are split into whole microkernel tiles, or into pairs of AMX tiles.
#if defined(HAS_AMX)
constexpr int GRAIN = 2 * amx::SIDE;
#else
constexpr int GRAIN = ROWS;
#endif

#if defined(HAS_AMX)
namespace amx {

static_assert(LANES == SIDE, "a vector is a row of a square");

// Split of the k-steps of a GEMM into instructions.
struct Steps {
    int all, at_once;
    explicit Steps(int all) : all(all), at_once(steps_at_once(all)) {}
    int times() const { return all / at_once; }
};

// An AMX operand: address of the first row, and strides in bytes to the next row, to the next k-steps of a row, and to
// the adjacent tile.
struct Operand {
    const char* at;
    long row, steps, beside;
};

template <class Item>
static inline Operand rows_of(const Item* at, long stride, Steps steps, long beside = 0) {
    constexpr long item = sizeof(Item);
    return {reinterpret_cast<const char*>(at), stride * item, 4L * steps.at_once, beside * stride * item};
}

// Packed weights from output `first` on, within its panel.
template <class KPack>
static inline Operand columns_of(const KPack* packed, Steps steps, int outputs, int first) {
    const int p = first / PANEL, wide = std::min(PANEL, round_up(outputs - p * PANEL, LANES));
    const KPack* at = packed + (size_t)p * PANEL * steps.all + first % PANEL;
    return {reinterpret_cast<const char*>(at), 4L * wide, 4L * wide * steps.at_once, BYTES};
}

// Multiply TALL tiles of rows with BROAD tiles of words. Accumulators are tile registers 0 to 3 (0 1 above 2 3);
// operands are loaded into LEFT, RIGHT and the registers after them.
template <class N, int TALL, int BROAD, int LEFT = 4, int RIGHT = 6>
static IN_REGISTERS void multiply(Operand rows, Operand words, int times) {
    zero<0>();
    if constexpr (BROAD == 2) zero<1>();
    if constexpr (TALL == 2) zero<2>();
    if constexpr (TALL * BROAD == 4) zero<3>();
    for (; times > 0; times--, rows.at += rows.steps, words.at += words.steps) {
        read<RIGHT>(words.at, words.row);
        read<LEFT>(rows.at, rows.row);
        N::template add_squares<0, LEFT, RIGHT>();
        if constexpr (TALL == 2) {
            read<LEFT + 1>(rows.at + rows.beside, rows.row);
            N::template add_squares<2, LEFT + 1, RIGHT>();
        }
        if constexpr (BROAD == 2) {
            read<RIGHT + 1>(words.at + words.beside, words.row);
            N::template add_squares<1, LEFT, RIGHT + 1>();
        }
        if constexpr (TALL * BROAD == 4) N::template add_squares<3, LEFT + 1, RIGHT + 1>();
    }
}

// Store the accumulators of one tile, or of two if more than one is `left`, to rows with stride `apart`.
template <class N, int LEFT, int RIGHT>
static inline void multiply_to(Operand rows, Operand words, int times, int left, float* to, long apart) {
    if (left > SIDE) {
        multiply<N, 1, 2, LEFT, RIGHT>(rows, words, times);
        write<1>(to + SIDE, apart * 4);
    } else {
        multiply<N, 1, 1, LEFT, RIGHT>(rows, words, times);
    }
    write<0>(to, apart * 4);
}

// Rows in tiles of SIDE. A partial last tile starts earlier and overlaps the one before.
struct Squares {
    int rows, count, high;
    explicit Squares(int rows) : rows(rows), count((rows + SIDE - 1) / SIDE), high(std::min(SIDE, rows)) {}
    int first(int square) const { return std::min(square * SIDE, rows - high); }
    int fresh(int square) const { return square * SIDE - first(square); }  // rows shared with the tile before
};

// `take(row, held, v, column)` gets the sums of `held` rows from `row` on with vector v of `words`, one Vec per row.
template <class N, int BROAD, class Take>
static inline void gemm_of_columns(const typename N::Item* rows, long stride, Squares squares, Operand words,
                                   Steps steps, Take&& take) {
    alignas(64) float sums[4][SIDE * SIDE];
    auto hand_on = [&](int square, int from) {
        const int first = squares.first(square), fresh = squares.fresh(square);
        for (int v = 0; v < BROAD; v++)
            take(first + fresh, squares.high - fresh, v, reinterpret_cast<const Vec*>(sums[from + v]) + fresh);
    };
    for (int square = 0; square < squares.count; square += 2) {
        const int first = squares.first(square), below = std::min(square + 1, squares.count - 1);
        const Operand own = rows_of(rows + first * stride, stride, steps, squares.first(below) - first);
        if (below > square) {
            multiply<N, 2, BROAD>(own, words, steps.times());
            write<2>(sums[2], BYTES);
            if constexpr (BROAD == 2) write<3>(sums[3], BYTES);
        } else {
            multiply<N, 1, BROAD>(own, words, steps.times());
        }
        write<0>(sums[0], BYTES);
        if constexpr (BROAD == 2) write<1>(sums[1], BYTES);
        hand_on(square, 0);
        if (below > square) hand_on(below, 2);
    }
}

// The GEMM of gemm.h; `take(row, held, output, column)` as above.
template <class N, class Take>
static inline void gemm_in_columns(const typename N::Item* rows, long stride, int count,
                                   const typename N::KPack* packed, Steps steps, int outputs, int first, int last,
                                   Take&& take) {
    const Squares squares(count);
    const Registers registers(squares.high, steps.at_once);
    for (int c = first * PANEL; c < std::min(last * PANEL, outputs); c += 2 * SIDE) {
        const Operand words = columns_of(packed, steps, outputs, c);
        auto emit = [&](int r, int held, int v, const Vec* column) { take(r, held, c + v * SIDE, column); };
        if (4L * (c % PANEL + SIDE) < words.row)
            gemm_of_columns<N, 2>(rows, stride, squares, words, steps, emit);
        else
            gemm_of_columns<N, 1>(rows, stride, squares, words, steps, emit);
    }
}

template <class N, class Epilogue>
static inline void gemm(const typename N::Item* rows, long stride, int count, const typename N::KPack* packed,
                        int depth, int outputs, int first, int last, Epilogue&& epilogue) {
    gemm_in_columns<N>(rows, stride, count, packed, Steps(depth / N::K_STEP), outputs, first, last,
                       [&](int row, int held, int c, const Vec* column) {
                           for (int r = 0; r < held; r++) epilogue(row + r, c, column[r]);
                       });
}

}  // namespace amx
#endif
