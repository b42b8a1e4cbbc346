// Norms of rows: mean and variance, and what is made of a row with them.

#pragma once

#include "gemm.h"

// Mean of some numbers and the sum of their squares around it, in two passes: no digit is lost where the mean is large.
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

// What a norm takes off and multiplies by: scale is 1 / sqrt(var + eps).
struct NormStats {
    float mean, scale;
};

template <class N>
static inline NormStats norm_stats_of(const typename N::Item* row, int depth, float eps) {
    const Moments spread = moments_of<N>(row, depth);
    return {spread.mean, 1.0f / std::sqrt(spread.squares / depth + eps)};
}

// (x - mean) * scale of a row; scale and shift of LayerNorm are folded into the product that follows.
template <class From, class N>
static inline void normalize_row(const typename From::Item* from, int depth, NormStats by, typename N::Item* to) {
    int c = 0;
    for (; c + LANES <= depth; c += LANES) N::write(to + c, (From::read(from + c) - by.mean) * by.scale);
    for (; c < depth; c++) to[c] = N::round((From::one(from[c]) - by.mean) * by.scale);
}

// LayerNorm of rows in their place, where nothing follows that could take its weight and shift; both in whole vectors.
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
