// AMX GEMM: accumulators in up to 2 x 2 tile registers, so that each loaded operand is used twice.

#pragma once

#include "blocking.h"
#include "dtypes.h"

// Rows are split into whole microkernel tiles, or into pairs of AMX tiles.
#if defined(HAS_AMX)
constexpr int GRAIN = 2 * amx::SIDE;
#else
constexpr int GRAIN = ROWS;
#endif

// Give an epilogue two adjacent vectors of outputs: at once if it takes them, so that it stores whole cache lines.
template <class Epilogue>
static IN_REGISTERS auto give_two(const Epilogue& epilogue, int r, int c, Vec x, Vec next, int)
    -> decltype(epilogue(r, c, x, next)) {
    epilogue(r, c, x, next);
}
template <class Epilogue>
static IN_REGISTERS void give_two(const Epilogue& epilogue, int r, int c, Vec x, Vec next, long) {
    epilogue(r, c, x);
    epilogue(r, c + LANES, next);
}

#if defined(HAS_AMX)
namespace amx {

static_assert(LANES == SIDE, "a vector is a row of a square");

// Bytes of weights that stay in L2: a quarter of it beside rows that stay too, half of it if there are more rows.
static inline long group_bytes(long bytes_of_rows) { return l2_bytes() / (bytes_of_rows > l2_bytes() / 2 ? 2 : 4); }

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

// Memory that is prefetched into L2 during a product, some cache lines per instruction step.
struct Ahead {
    const char* at = nullptr;
    int lines = 0;

    // Fetch `bytes` from `at` on, within `times` instruction steps.
    static Ahead of(const void* at, long bytes, long times) {
        return {static_cast<const char*>(at), (int)std::min(8L, (bytes / BYTES + times - 1) / times)};
    }
    IN_REGISTERS void fetch() {
        for (int i = 0; i < lines; i++, at += BYTES) __builtin_prefetch(at, 0, 2);
    }
};

// Multiply TALL tiles of rows with BROAD tiles of words. Accumulators are tile registers 0 to 3 (0 1 above 2 3);
// operands are loaded into LEFT, RIGHT and the registers after them.
//
// After some 1,500 cycles without a tile store, the next stores take about 12 cycles a row instead of 2 (measured on a
// Xeon of 2 MB L2), a third of the product of 768 inputs. So an operand is stored, for nothing, every few steps.
template <class N, int TALL, int BROAD, int LEFT = 4, int RIGHT = 6>
static IN_REGISTERS void multiply(Operand rows, Operand words, int times, Ahead& next_rows, Ahead& next_words) {
    constexpr int STORE_EVERY = 8;
    alignas(64) char ignored[SIDE * BYTES];
    Ahead more_rows = next_rows, more_words = next_words;
    zero<0>();
    if constexpr (BROAD == 2) zero<1>();
    if constexpr (TALL == 2) zero<2>();
    if constexpr (TALL * BROAD == 4) zero<3>();
    for (int i = 1; i <= times; i++, rows.at += rows.steps, words.at += words.steps) {
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
        if (i % STORE_EVERY == 0) write<RIGHT>(ignored, BYTES);
        more_rows.fetch();
        more_words.fetch();
    }
    next_rows = more_rows, next_words = more_words;
}

template <class N, int TALL, int BROAD, int LEFT = 4, int RIGHT = 6>
static IN_REGISTERS void multiply(Operand rows, Operand words, int times) {
    Ahead none;
    multiply<N, TALL, BROAD, LEFT, RIGHT>(rows, words, times, none, none);
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

// Sums of some rows, from `row` on, and of so many vectors of outputs, from `output` on.
template <int VECTORS>
struct Sums {
    static constexpr int vectors = VECTORS;
    int row, rows, output;
    const Vec* first;
    const Vec* column(int v) const { return first + v * SIDE; }
};

// Products of two tiles of rows, placed by `squares`, with BROAD tiles of words.
template <class N, int BROAD, class Take>
static inline void gemm_of_pair(const typename N::Item* rows, long stride, Squares squares, int square, Operand words,
                                Steps steps, int output, Ahead& next_rows, Ahead& next_words, Take&& take) {
    alignas(64) float sums[4][SIDE * SIDE];
    const int first = squares.first(square), below = std::min(square + 1, squares.count - 1);
    const Operand own = rows_of(rows + first * stride, stride, steps, squares.first(below) - first);
    if (below > square) {
        multiply<N, 2, BROAD>(own, words, steps.times(), next_rows, next_words);
    } else {
        multiply<N, 1, BROAD>(own, words, steps.times(), next_rows, next_words);
    }
    write<0>(sums[0], BYTES);
    if constexpr (BROAD == 2) write<1>(sums[1], BYTES);
    if (below > square) {
        write<2>(sums[2], BYTES);
        if constexpr (BROAD == 2) write<3>(sums[3], BYTES);
    }
    for (int i = square; i <= below; i++) {
        const int fresh = squares.fresh(i);
        const Vec* column = reinterpret_cast<const Vec*>(sums[2 * (i - square)]) + fresh;
        take(Sums<BROAD>{squares.first(i) + fresh, squares.high - fresh, output, column});
    }
}

// The GEMM of gemm.h; `take` gets the Sums. Outputs are taken in groups whose weights stay in L2: each pair of tiles of
// rows is multiplied by all of a group, while the next rows and the weights of the next group are prefetched.
template <class N, class Take>
static inline void gemm_in_columns(const typename N::Item* rows, long stride, int count,
                                   const typename N::KPack* packed, Steps steps, int outputs, int first, int last,
                                   Take&& take) {
    const Squares squares(count);
    const Registers registers(squares.high, steps.at_once);
    const long panel = 4L * PANEL * steps.all, pair = 2L * SIDE * stride, pairs = (squares.count + 1) / 2;
    const long held = std::max(1L, group_bytes(pairs * pair * (long)sizeof(*rows)) / panel);
    const long groups = (last - first + held - 1) / held;
    for (long g = 0; g < groups; g++) {
        const int from = first + (int)((last - first) * g / groups),
                  to = first + (int)((last - first) * (g + 1) / groups);
        const int end = std::min(to * PANEL, outputs);
        const long times = (end - from * PANEL + 2 * SIDE - 1) / (2 * SIDE) * steps.times();
        Ahead next_words;
        if (g + 1 < groups)
            next_words = Ahead::of(packed + (size_t)to * PANEL * steps.all, panel * (to - from), pairs * times);
        for (int square = 0; square < squares.count; square += 2) {
            Ahead next_rows;
            if (square + 2 < squares.count)
                next_rows = Ahead::of(rows + (square / 2 + 1) * pair, pair * sizeof(*rows), times);
            for (int c = from * PANEL; c < end; c += 2 * SIDE) {
                const Operand words = columns_of(packed, steps, outputs, c);
                if (4L * (c % PANEL + SIDE) < words.row)
                    gemm_of_pair<N, 2>(rows, stride, squares, square, words, steps, c, next_rows, next_words, take);
                else
                    gemm_of_pair<N, 1>(rows, stride, squares, square, words, steps, c, next_rows, next_words, take);
            }
        }
    }
}

template <class N, class Epilogue>
static inline void gemm(const typename N::Item* rows, long stride, int count, const typename N::KPack* packed,
                        int depth, int outputs, int first, int last, Epilogue&& epilogue) {
    gemm_in_columns<N>(rows, stride, count, packed, Steps(depth / N::K_STEP), outputs, first, last, [&](auto sums) {
        const auto emit = epilogue;  // a copy, which no store can change, so that its fields stay in registers
        for (int r = 0; r < sums.rows; r++)
            if constexpr (sums.vectors == 2)
                give_two(emit, sums.row + r, sums.output, sums.column(0)[r], sums.column(1)[r], 0);
            else
                emit(sums.row + r, sums.output, sums.column(0)[r]);
    });
}

}  // namespace amx
#endif
