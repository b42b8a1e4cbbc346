// Products with packed weights, and what is done to the sums while they are still in registers.
//
// Weights lie in panels of PANEL outputs, the last one narrower: in a panel, step by step along the inputs, one Word for
// each output. So a tile of ROWS rows and one panel reads weights in order and keeps all its sums in registers.

#pragma once

#include "amx_product.h"

// Add the products of R rows with one panel of V vectors to sums in registers. From `ahead` on lies what is needed soon:
// a line of it is asked for in each step. Where there is nothing of the kind, it is the panel itself.
template <class N, int R, int V>
static IN_REGISTERS void add_products(const typename N::Item* rows, long stride, const typename N::Word* panel, int steps,
                                      const typename N::Word* ahead, Lanes (&sum)[R][V]) {
    for (int k = 0; k < steps; k++, panel += V * LANES) {
        __builtin_prefetch(ahead + k * LANES, 0, 2);
        auto word = [&](int r) {
            typename N::Word numbers;
            std::memcpy(&numbers, rows + r * stride + k * N::STEP, sizeof(numbers));
            return numbers;
        };
        for (int r = 0; r < R; r++) {
            const typename N::Word row = word(r);
            for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], row, panel + v * LANES);
        }
    }
}

// The products alone; `finish(row, vector, sums)` takes them from the registers.
template <class N, int R, int V, class Finish>
static IN_REGISTERS void tile(const typename N::Item* rows, long stride, const typename N::Word* panel, int steps,
                              const typename N::Word* ahead, Finish&& finish) {
    Lanes sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Lanes{};
    add_products<N, R, V>(rows, stride, panel, steps, ahead, sum);
    // Laid down in one go: a compiler that does not unroll what follows would keep the sums in memory all the time.
    alignas(64) float laid[R * V * LANES];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(laid + (r * V + v) * LANES, sum[r][v]);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) finish(r, v, load(laid + (r * V + v) * LANES));
}

template <class N, int V, class Finish>
static inline void tile_of(int count, const typename N::Item* rows, long stride, const typename N::Word* panel,
                           int steps, const typename N::Word* ahead, Finish&& finish) {
    switch (count) {
        case 1: return tile<N, 1, V>(rows, stride, panel, steps, ahead, finish);
        case 2: return tile<N, 2, V>(rows, stride, panel, steps, ahead, finish);
        case 3: return tile<N, 3, V>(rows, stride, panel, steps, ahead, finish);
        case 4: return tile<N, 4, V>(rows, stride, panel, steps, ahead, finish);
        case 5: return tile<N, 5, V>(rows, stride, panel, steps, ahead, finish);
        default: return tile<N, ROWS, V>(rows, stride, panel, steps, ahead, finish);
    }
}

// rows (count x depth) times packed weights, outputs from panel `first` up to `last`.
// `finish(row, output, sums)`: `output` is the first of LANES outputs; those from `outputs` on are padding.
template <class N, class Finish>
static inline void product(const typename N::Item* rows, long stride, int count, const typename N::Word* packed,
                           int depth, int outputs, int first, int last, Finish&& finish) {
    const int steps = depth / N::STEP;
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::worth(count, steps)) return amx::product<N>(rows, stride, count, packed, depth, outputs, first, last, finish);
    }
#endif
    for (int p = first; p < last; p++) {
        const typename N::Word* panel = packed + (size_t)p * PANEL * steps;
        const int width = std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES);
        int r = 0;
        auto put = [&](int i, int v, Lanes sum) { finish(r + i, p * PANEL + v * LANES, sum); };
        if (WIDE > 2 && width <= 2) {  // a narrow panel leaves registers for twice the rows
            for (; r + 2 * ROWS <= count; r += 2 * ROWS) {
                const typename N::Item* at = rows + r * stride;
                if (width == 2) tile<N, 2 * ROWS, 2>(at, stride, panel, steps, panel, put);
                if (width == 1) tile<N, 2 * ROWS, 1>(at, stride, panel, steps, panel, put);
            }
        }
        // The first tiles of a panel fetch the next one; else each panel's first tile would wait for memory.
        const typename N::Word* next = panel + (size_t)PANEL * steps;
        const int fetching = p + 1 < last ? r + WIDE * ROWS : 0;
        for (; r < count; r += ROWS, next += LANES * steps) {
            const int some = std::min(ROWS, count - r);
            const typename N::Word* ahead = r < fetching ? next : panel;
            const typename N::Item* at = rows + r * stride;
            switch (width) {
                case 1: tile_of<N, 1>(some, at, stride, panel, steps, ahead, put); break;
                case 2: tile_of<N, 2>(some, at, stride, panel, steps, ahead, put); break;
                case 3: tile_of<N, WIDE < 3 ? WIDE : 3>(some, at, stride, panel, steps, ahead, put); break;
                default: tile_of<N, WIDE>(some, at, stride, panel, steps, ahead, put); break;
            }
        }
    }
}

static inline int panels(int outputs) { return (outputs + PANEL - 1) / PANEL; }

// Write LANES results, or those of them that are no padding.
template <class N>
static inline void put(typename N::Item* at, Lanes x, int left) {
    if (left >= LANES) {
        N::write(at, x);
    } else {
        for (int i = 0; i < left; i++) at[i] = N::round(x[i]);
    }
}

template <class N>
static inline Lanes get(const typename N::Item* at, int left) {
    if (left >= LANES) return N::read(at);
    Lanes x = Lanes{};
    for (int i = 0; i < left; i++) x[i] = N::one(at[i]);
    return x;
}
