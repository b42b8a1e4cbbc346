// Normalisation of rows: mean and variance, and their application.

#pragma once

#include "gemm.h"

// Mean, and sum of squared deviations, in two passes: no cancellation for a large mean.
struct Moments {
    float mean, squares;
};

template <class N>
static inline Moments moments_of(const typename N::Item* x, int size) {
    Vec sums = Vec{};
    int i = 0;
    for (; i + LANES <= size; i += LANES) sums += N::read(x + i);
    float mean = add_up(sums);
    for (int rest = i; rest < size; rest++) mean += N::one(x[rest]);
    mean /= size;
    sums = Vec{};
    for (i = 0; i + LANES <= size; i += LANES) {
        const Vec d = N::read(x + i) - mean;
        sums += d * d;
    }
    float squares = add_up(sums);
    for (; i < size; i++) squares += (N::one(x[i]) - mean) * (N::one(x[i]) - mean);
    return {mean, squares};
}

// Mean and scale of a norm: scale = 1 / sqrt(var + eps).
struct NormStats {
    float mean, scale;
};

template <class N>
static inline NormStats norm_stats_of(const typename N::Item* row, int depth, float eps) {
    const Moments spread = moments_of<N>(row, depth);
    return {spread.mean, 1.0f / std::sqrt(spread.squares / depth + eps)};
}

// (x - mean) * scale of a row; weight and bias of LayerNorm are folded into the next GEMM.
template <class From, class N>
static inline void normalize_row(const typename From::Item* from, int depth, NormStats by, typename N::Item* to) {
    int c = 0;
    for (; c + LANES <= depth; c += LANES) N::write(to + c, (From::read(from + c) - by.mean) * by.scale);
    for (; c < depth; c++) to[c] = N::round((From::one(from[c]) - by.mean) * by.scale);
}

// In-place LayerNorm of rows, if no GEMM follows to fold weight and bias into; both are padded to whole vectors.
template <class N>
static inline void layer_norm_rows(typename N::Item* rows, int count, int depth, const float* weight,
                                   const float* shift, float eps) {
    for (typename N::Item* row = rows; row < rows + (size_t)count * depth; row += depth) {
        const NormStats by = norm_stats_of<N>(row, depth, eps);
        for (int c = 0; c < depth; c += LANES) {
            const Vec z = (load_partial<N>(row + c, depth - c) - by.mean) * by.scale;
            store_partial<N>(row + c, z * load(weight + c) + load(shift + c), depth - c);
        }
    }
}
