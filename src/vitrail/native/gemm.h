// Products with packed weights, and what is done to the sums while they are still in registers.
//
// Weights lie in panels of PANEL outputs, the last one narrower: in a panel, step by step along the inputs, one KPack
// for each output. So a tile of ROWS rows and one panel reads weights in order and keeps all its sums in registers.

#pragma once

#include "amx_gemm.h"

// Add the products of R rows with one panel of V vectors to sums in registers. From `ahead` on lies what is needed
// soon: a line of it is asked for in each step. Where there is nothing of the kind, it is the panel itself.
template <class N, int R, int V>
static IN_REGISTERS void add_products(const typename N::Item* rows, long stride, const typename N::KPack* panel,
                                      int steps, const typename N::KPack* ahead, Vec (&sum)[R][V]) {
    for (int k = 0; k < steps; k++, panel += V * LANES) {
        __builtin_prefetch(ahead + k * LANES, 0, 2);
        auto word = [&](int r) {
            typename N::KPack numbers;
            std::memcpy(&numbers, rows + r * stride + k * N::K_STEP, sizeof(numbers));
            return numbers;
        };
        for (int r = 0; r < R; r++) {
            const typename N::KPack row = word(r);
            for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], row, panel + v * LANES);
        }
    }
}

// The products alone; `finish(row, vector, sums)` takes them from the registers.
template <class N, int R, int V, class Epilogue>
static IN_REGISTERS void microkernel(const typename N::Item* rows, long stride, const typename N::KPack* panel,
                                     int steps, const typename N::KPack* ahead, Epilogue&& epilogue) {
    Vec sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    add_products<N, R, V>(rows, stride, panel, steps, ahead, sum);
    // Laid down in one go: a compiler that does not unroll what follows would keep the sums in memory all the time.
    alignas(64) float laid[R * V * LANES];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(laid + (r * V + v) * LANES, sum[r][v]);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) epilogue(r, v, load(laid + (r * V + v) * LANES));
}

template <class N, int V, class Epilogue>
static inline void microkernel_of(int count, const typename N::Item* rows, long stride, const typename N::KPack* panel,
                           int steps, const typename N::KPack* ahead, Epilogue&& epilogue) {
    switch (count) {
        case 1: return microkernel<N, 1, V>(rows, stride, panel, steps, ahead, epilogue);
        case 2: return microkernel<N, 2, V>(rows, stride, panel, steps, ahead, epilogue);
        case 3: return microkernel<N, 3, V>(rows, stride, panel, steps, ahead, epilogue);
        case 4: return microkernel<N, 4, V>(rows, stride, panel, steps, ahead, epilogue);
        case 5: return microkernel<N, 5, V>(rows, stride, panel, steps, ahead, epilogue);
        default: return microkernel<N, ROWS, V>(rows, stride, panel, steps, ahead, epilogue);
    }
}

// rows (count x depth) times packed weights, outputs from panel `first` up to `last`.
// `finish(row, output, sums)`: `output` is the first of LANES outputs; those from `outputs` on are padding.
template <class N, class Epilogue>
static inline void gemm(const typename N::Item* rows, long stride, int count, const typename N::KPack* packed,
                           int depth, int outputs, int first, int last, Epilogue&& epilogue) {
    const int steps = depth / N::K_STEP;
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::use_amx(count, steps))
            return amx::gemm<N>(rows, stride, count, packed, depth, outputs, first, last, epilogue);
    }
#endif
    for (int p = first; p < last; p++) {
        const typename N::KPack* panel = packed + (size_t)p * PANEL * steps;
        const int width = std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES);
        int r = 0;
        auto emit = [&](int i, int v, Vec sum) { epilogue(r + i, p * PANEL + v * LANES, sum); };
        if (WIDE > 2 && width <= 2) {  // a narrow panel leaves registers for twice the rows
            for (; r + 2 * ROWS <= count; r += 2 * ROWS) {
                const typename N::Item* at = rows + r * stride;
                if (width == 2) microkernel<N, 2 * ROWS, 2>(at, stride, panel, steps, panel, emit);
                if (width == 1) microkernel<N, 2 * ROWS, 1>(at, stride, panel, steps, panel, emit);
            }
        }
        // The first tiles of a panel fetch the next one; else each panel's first tile would wait for memory.
        const typename N::KPack* next = panel + (size_t)PANEL * steps;
        const int fetching = p + 1 < last ? r + WIDE * ROWS : 0;
        for (; r < count; r += ROWS, next += LANES * steps) {
            const int some = std::min(ROWS, count - r);
            const typename N::KPack* ahead = r < fetching ? next : panel;
            const typename N::Item* at = rows + r * stride;
            switch (width) {
                case 1: microkernel_of<N, 1>(some, at, stride, panel, steps, ahead, emit); break;
                case 2: microkernel_of<N, 2>(some, at, stride, panel, steps, ahead, emit); break;
                case 3: microkernel_of<N, WIDE < 3 ? WIDE : 3>(some, at, stride, panel, steps, ahead, emit); break;
                default: microkernel_of<N, WIDE>(some, at, stride, panel, steps, ahead, emit); break;
            }
        }
    }
}

static inline int panels(int outputs) { return (outputs + PANEL - 1) / PANEL; }

// Write LANES results, or those of them that are no padding.
template <class N>
static inline void store_partial(typename N::Item* at, Vec x, int left) {
    if (left >= LANES) {
        N::write(at, x);
    } else {
        for (int i = 0; i < left; i++) at[i] = N::round(x[i]);
    }
}

template <class N>
static inline Vec load_partial(const typename N::Item* at, int left) {
    if (left >= LANES) return N::read(at);
    Vec x = Vec{};
    for (int i = 0; i < left; i++) x[i] = N::one(at[i]);
    return x;
}
