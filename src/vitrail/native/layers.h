// Parallelisation of linear layers over threads, and their epilogues.

#pragma once

#include <type_traits>

#include "norms.h"

// Activations are within a branch, ADD is at its end. SILU_GATE, silu(a) b of two halves, is a step of an MLP.
enum Epilogue { PLAIN = 0, GELU = 1, ADD = 2, SQUARED_RELU = 3, QUICK_GELU = 4, SILU_GATE = 5, TANH_GELU = 6 };

// Advance a pointer; null stays null.
template <class Item>
static inline Item* moved(Item* at, long items) {
    return at == nullptr ? nullptr : at + items;
}

// Rows of a block: a multiple of the tile height, balanced over threads, and small enough for the cache.
static inline int rows_at_a_time(long rows, size_t bytes_of_row, int threads) {
    const long fitting = std::max<long>(GRAIN, rows_in_cache(bytes_of_row));
    const long shares = std::max<long>(1, (rows + fitting * threads - 1) / (fitting * threads)) * threads;
    return round_up((int)((rows + shares - 1) / shares), GRAIN);
}

// Parallel loop over blocks of rows: `work(start, count)`.
template <class Work>
static void parallel_rows(long rows, size_t bytes_of_row, int threads, Work&& work) {
    const int chunk = rows_at_a_time(rows, bytes_of_row, threads);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long start = 0; start < rows; start += chunk) work(start, (int)std::min<long>(chunk, rows - start));
}

// Parallel loop of a layer: `work(start, count, first, last)` with all panels of outputs, or, if there are few rows,
// with all rows and a range of panels, so that each thread reads only its own weights.
template <class Work>
static void parallel_layer(long rows, size_t bytes_of_row, int outputs, int threads, Work&& work) {
    const int all = panels(outputs), groups = std::min(all, threads * 2);
    if (rows >= 64L * threads || all == 1)
        return parallel_rows(rows, bytes_of_row, threads, [&](long start, int count) { work(start, count, 0, all); });
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int group = 0; group < groups; group++) work(0, (int)rows, all * group / groups, all * (group + 1) / groups);
}

// Epilogue that stores `map(row, output, result)`. `touch` fetches the lines of a tile before its products: a store
// that misses the cache would wait for memory at the end of the tile.
template <class To, class Map>
struct StoreResults {
    typename To::Item* y;
    long ldy;
    int outputs;
    Map map;
    IN_REGISTERS void operator()(int r, int c, Vec x) const {
        store_partial<To>(y + r * ldy + c, map(r, c, x), outputs - c);
    }
    IN_REGISTERS void operator()(int r, int c, Vec x, Vec next) const {
        if (outputs - c >= 2 * LANES) return To::write(y + r * ldy + c, map(r, c, x), map(r, c + LANES, next));
        (*this)(r, c, x);
        (*this)(r, c + LANES, next);
    }
    IN_REGISTERS void touch(int r, int c) const { __builtin_prefetch(y + r * ldy + c, 1); }
};

// Run a layer with its epilogue: `layer(put)` calls `put(row, output, results)` for LANES outputs at a time. Results
// are stored in `To`: the compute dtype within a branch, the residual dtype at its end. Lambdas capture by value:
// double indirection keeps operands in memory and makes the GEMM 5 % slower.
template <class To, class N, class Layer>
static inline void with_epilogue(int epilogue, typename To::Item* y, long ldy, const typename To::Item* add, long ldadd,
                                 int outputs, Layer&& layer) {
    auto store = [=](auto map) { return StoreResults<To, decltype(map)>{y, ldy, outputs, map}; };
    if constexpr (std::is_same_v<To, N>) {
        if (epilogue == GELU) return layer(store([](int, int, Vec x) { return N::gelu(x); }));
        if (epilogue == SQUARED_RELU) return layer(store([](int, int, Vec x) { return max(x, Vec{}) * x; }));
        if (epilogue == QUICK_GELU)
            return layer(store([](int, int, Vec x) { return x / (1.0f + N::exponential(-1.702f * x)); }));
        // x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
        if (epilogue == TANH_GELU)
            return layer(store([](int, int, Vec x) {
                return x / (1.0f + N::exponential(-1.5957691216f * x * (1.0f + 0.044715f * x * x)));
            }));
    }
    if constexpr (std::is_same_v<To, typename N::Residual>) {
        if (epilogue == ADD)
            return layer(
                store([=](int r, int c, Vec x) { return x + load_partial<To>(add + r * ldadd + c, outputs - c); }));
    }
    layer(store([](int, int, Vec x) { return x; }));
}
