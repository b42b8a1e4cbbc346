// GEMM with packed weights and fused epilogues.
//
// Weights are packed in panels of PANEL outputs, the last one narrower; a panel is k-major, with one KPack per output
// in each k-step. So the microkernel of ROWS rows and one panel reads weights sequentially and keeps its accumulators
// in registers.

#pragma once

#include "amx_gemm.h"
#include "blocking.h"

// Microkernel: accumulate R rows times one panel of V vectors in registers. `ahead` is prefetched, one cache line per
// k-step; pass the panel itself if there is nothing to prefetch.
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

// Microkernel with initial accumulators `begin(row, vector)`; `epilogue(row, vector, sums)` gets the result.
template <class N, int R, int V, class Begin, class Epilogue>
static IN_REGISTERS void microkernel_from(const typename N::Item* rows, long stride, const typename N::KPack* panel,
                                          int steps, const typename N::KPack* ahead, Begin&& begin,
                                          Epilogue&& epilogue) {
    Vec sum[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[r][v] = begin(r, v);
    add_products<N, R, V>(rows, stride, panel, steps, ahead, sum);
    // Spill the accumulators in an unrolled loop; otherwise GCC keeps them in memory during the whole product.
    alignas(64) float spilled[R * V * LANES];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(spilled + (r * V + v) * LANES, sum[r][v]);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) epilogue(r, v, load(spilled + (r * V + v) * LANES));
}

// The same with zero-initialised accumulators.
template <class N, int R, int V, class Epilogue>
static IN_REGISTERS void microkernel(const typename N::Item* rows, long stride, const typename N::KPack* panel,
                                     int steps, const typename N::KPack* ahead, Epilogue&& epilogue) {
    microkernel_from<N, R, V>(rows, stride, panel, steps, ahead, [](int, int) { return Vec{}; }, epilogue);
}

// Partial sums from the previous blocks along K, with row stride `stride`.
struct PartialSums {
    const float* at;
    long stride;
    PartialSums from(long row) const { return {at + row * stride, stride}; }
    IN_REGISTERS Vec operator()(int r, int v) const { return load(at + r * stride + v * LANES); }
};

template <class N, int V, int R = ROWS, class Epilogue>
static inline void microkernel_of(int count, const typename N::Item* rows, long stride, const typename N::KPack* panel,
                                  int steps, const typename N::KPack* ahead, PartialSums begin, Epilogue&& epilogue) {
    if constexpr (R > 1) {
        if (count < R) return microkernel_of<N, V, R - 1>(count, rows, stride, panel, steps, ahead, begin, epilogue);
    }
    microkernel_from<N, R, V>(rows, stride, panel, steps, ahead, begin, epilogue);
}

// Epilogue of all blocks but the last. A named type, so that all GEMMs share one instantiation.
struct StorePartial {
    float* at;
    int count, first;  // rows of a panel, and the first panel
    IN_REGISTERS void operator()(int r, int c, Vec sum) const {
        store(at + ((size_t)(c / PANEL - first) * count + r) * PANEL + c % PANEL, sum);
    }
};

// Prefetch the results of an epilogue that has `touch`; others have nothing to fetch.
template <class Epilogue>
static IN_REGISTERS auto touch_results(const Epilogue& epilogue, int r, int c, int) -> decltype(epilogue.touch(r, c)) {
    epilogue.touch(r, c);
}
template <class Epilogue>
static IN_REGISTERS void touch_results(const Epilogue&, int, int, long) {}

// One block of k-steps of all panels: `packed` is the first panel, and each panel has `depth` k-steps.
struct KBlock {
    int begin, end, depth;
    int steps() const { return end - begin; }
};

// gemm() below for one block along K, from partial sums (panels, count, PANEL) or, if they are null, from zero.
template <class N, class Epilogue>
static inline void gemm_block(const typename N::Item* rows, long stride, int count, const typename N::KPack* packed,
                              KBlock block, int outputs, int first, int last, const float* partial,
                              Epilogue&& epilogue) {
    alignas(64) static const float zeros[PANEL] = {};
    const int steps = block.steps();
    for (int p = first; p < last; p++) {
        const int width = std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES);
        const typename N::KPack* panel = packed + (size_t)p * PANEL * block.depth + (size_t)block.begin * width * LANES;
        const PartialSums begin = partial == nullptr
                                      ? PartialSums{zeros, 0}
                                      : PartialSums{partial + (size_t)(p - first) * count * PANEL, PANEL};
        int r = 0;
        auto emit = [&](int i, int v, Vec sum) { epilogue(r + i, p * PANEL + v * LANES, sum); };
        if (WIDE > 2 && width <= 2) {  // a narrow panel leaves registers for twice as many rows
            for (; r + 2 * ROWS <= count; r += 2 * ROWS) {
                for (int i = 0; i < 2 * ROWS; i++) touch_results(epilogue, r + i, p * PANEL, 0);
                const typename N::Item* at = rows + r * stride;
                const PartialSums sums = begin.from(r);
                if (width == 2) microkernel_from<N, 2 * ROWS, 2>(at, stride, panel, steps, panel, sums, emit);
                if (width == 1) microkernel_from<N, 2 * ROWS, 1>(at, stride, panel, steps, panel, sums, emit);
            }
        }
        // Each tile prefetches a part of the next panel; else the first tile of each panel would stall on memory.
        const int next_width = std::min(WIDE, (outputs - (p + 1) * PANEL + LANES - 1) / LANES);
        const typename N::KPack* next =
            packed + (size_t)(p + 1) * PANEL * block.depth + (size_t)block.begin * next_width * LANES;
        const int tiles = std::max(next_width, (count - r + ROWS - 1) / ROWS);
        for (int tile = 0; r < count; r += ROWS, tile++) {
            const int some = std::min(ROWS, count - r);
            for (int i = 0; i < some; i++)
                for (int v = 0; v < width; v += 2) touch_results(epilogue, r + i, p * PANEL + v * LANES, 0);
            const typename N::KPack* ahead =
                p + 1 < last ? next + (long)steps * next_width * tile / tiles * LANES : panel;
            const typename N::Item* at = rows + r * stride;
            const PartialSums sums = begin.from(r);
            switch (width) {
                case 1: microkernel_of<N, 1>(some, at, stride, panel, steps, ahead, sums, emit); break;
                case 2: microkernel_of<N, 2>(some, at, stride, panel, steps, ahead, sums, emit); break;
                case 3:
                    microkernel_of < N, WIDE<3 ? WIDE : 3>(some, at, stride, panel, steps, ahead, sums, emit);
                    break;
                default: microkernel_of<N, WIDE>(some, at, stride, panel, steps, ahead, sums, emit); break;
            }
        }
    }
}

// rows (count x depth) times packed weights, outputs from panel `first` up to `last`, in blocks along the depth.
// `epilogue(row, output, sums)` gets LANES outputs from `output` on; those from `outputs` on are padding.
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
    const int blocks = k_blocks(N::K_STEP, steps);
    float* partial = blocks == 1 ? nullptr : scratch<float>(8, (size_t)(last - first) * count * PANEL);
    for (int b = 0; b < blocks; b++) {
        const KBlock block = {(int)((long)steps * b / blocks), (int)((long)steps * (b + 1) / blocks), steps};
        const typename N::Item* from = rows + (long)block.begin * N::K_STEP;
        const float* begin = b == 0 ? nullptr : partial;
        if (b == blocks - 1) {
            gemm_block<N>(from, stride, count, packed, block, outputs, first, last, begin, epilogue);
        } else {
            gemm_block<N>(from, stride, count, packed, block, outputs, first, last, begin,
                          StorePartial{partial, count, first});
        }
    }
}

static inline int panels(int outputs) { return (outputs + PANEL - 1) / PANEL; }

// Store the first `count` lanes. Out of line: an indexed vector has to be in memory, also on the path to whole ones.
template <class N>
__attribute__((noinline, cold)) static void store_lanes(typename N::Item* at, Vec x, int count) {
    for (int i = 0; i < count; i++) at[i] = N::round(x[i]);
}

// Store LANES results, without padding.
template <class N>
static IN_REGISTERS void store_partial(typename N::Item* at, Vec x, int left) {
    if (left >= LANES) {
        N::write(at, x);
    } else {
        store_lanes<N>(at, x, left & (LANES - 1));  // `left`; without the mask GCC warns of an index beyond LANES
    }
}

template <class N>
static inline Vec load_partial(const typename N::Item* at, int left) {
    if (left >= LANES) return N::read(at);
    Vec x = Vec{};
    for (int i = 0; i < left; i++) x[i] = N::one(at[i]);
    return x;
}
