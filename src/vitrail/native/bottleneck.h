// Convolutions as products: what a filter sees lies in few pieces of memory, so nothing is copied for each place.
//
// Maps are (lines, places, channels). Of a map with its border, the k pixels that a filter sees in one line lie side by
// side: k * channels numbers, and k such pieces one line apart. So a tile's rows are pointers, and its depth is pieces.

#pragma once

#include "products.h"

constexpr size_t CACHED = 128 << 10;  // bytes of weights that stay in a core's cache beside all else

// What a product reads of a map.
struct Pieces {
    int count;   // pieces of a row
    long apart;  // items from one piece to the next
    int steps;   // words of a piece
};

// The sums of R rows with one panel of V vectors; `finish(vector, column)` takes R sums of LANES outputs at a time.
template <class N, int R, int V, class Finish>
static inline void gathered_tile(const typename N::Item* const* rows, Pieces pieces, const typename N::Word* panel,
                                 Finish&& finish) {
    typedef typename N::Word Word;
    Lanes sum[V][R];
    for (int v = 0; v < V; v++)
        for (int r = 0; r < R; r++) sum[v][r] = Lanes{};
    for (int piece = 0; piece < pieces.count; piece++) {
        const typename N::Item* at[R];
        for (int r = 0; r < R; r++) at[r] = rows[r] + piece * pieces.apart;
        for (int k = 0; k < pieces.steps; k++, panel += V * LANES) {
            Word word[R];
            for (int r = 0; r < R; r++) std::memcpy(&word[r], at[r] + k * N::STEP, sizeof(Word));
            for (int v = 0; v < V; v++)
                for (int r = 0; r < R; r++) sum[v][r] = N::add_product(sum[v][r], word[r], panel + v * LANES);
        }
    }
    for (int v = 0; v < V; v++) finish(v, sum[v]);
}

// The tile for `count` rows and `width` vectors, both up to the template's.
template <class N, int R, int V, class Finish>
static inline void gathered_tile_of(int count, int width, const typename N::Item* const* rows, Pieces pieces,
                                    const typename N::Word* panel, Finish&& finish) {
    if constexpr (R > 1) {
        if (count < R) return gathered_tile_of<N, R - 1, V>(count, width, rows, pieces, panel, finish);
    }
    if constexpr (V > 1) {
        if (width < V) return gathered_tile_of<N, R, V - 1>(count, width, rows, pieces, panel, finish);
    }
    gathered_tile<N, R, V>(rows, pieces, panel, finish);
}

// `count` gathered rows times packed weights, outputs from panel `first` up to `last`. Where the weights stay in the cache
// rows come first, so that results are written in order; else panels do, so that each is fetched once.
// `finish(row, rows, output, column)`: the sums of `rows` rows from `row` on, for LANES outputs from `output` on.
template <class N, class Finish>
static inline void gathered_product(const typename N::Item* const* rows, int count, Pieces pieces,
                                    const typename N::Word* packed, int outputs, int first, int last, Finish&& finish) {
    const size_t panel = (size_t)PANEL * pieces.count * pieces.steps;
    const int block = (last - first) * panel * sizeof(typename N::Word) > CACHED ? count : ROWS;
    for (int begin = 0; begin < count; begin += block) {
        for (int p = first; p < last; p++) {
            const int width = std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES);
            for (int r = begin; r < std::min(count, begin + block); r += ROWS) {
                const int some = std::min(ROWS, count - r);
                auto put = [&](int v, const Lanes* column) { finish(r, some, p * PANEL + v * LANES, column); };
                gathered_tile_of<N, ROWS, WIDE>(some, width, rows + r, pieces, packed + p * panel, put);
            }
        }
    }
}

// relu(scale * x + shift) of `count` channels.
template <class N>
static inline void activate(const typename N::Item* from, int count, const float* scale, const float* shift,
                            typename N::Item* to) {
    for (int c = 0; c < count; c += LANES)
        N::write(to + c, largest(N::read(from + c) * load(scale + c) + load(shift + c), Lanes{}));
}
