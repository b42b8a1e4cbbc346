// Fused residual branches for training, blocked over rows so that intermediates stay in the cache.
//
// X is the residual dtype, N the compute dtype. Accumulators are fp32. Row blocks do not depend on the number of
// threads, so neither do results.

#pragma once

#include "arguments.h"
#include "norms.h"
#include "packing.h"
#include "reduce.h"
#include "weight_grad.h"

// Blocks of rows (chunks); `together` chunks are packed before the weight gradients are accumulated.
struct RowBlocks {
    long rows;
    int size;      // rows of a chunk, a multiple of k-steps or AMX tiles
    long count;    // number of chunks
    int together;  // chunks packed at a time
    int block;     // rows of weight gradients accumulated in registers: whole chunks, and a part of `together`

    RowBlocks(long rows, size_t bytes_of_row, int threads) : rows(rows) {
        const long fitting = std::min<long>(384, std::max<long>(2 * ROWS, (512 << 10) / (long)bytes_of_row));
        const long about = std::max<long>(4, ((rows + fitting - 1) / fitting + 3) / 4 * 4);
        size = round_up((int)((rows + about - 1) / about), WHOLE);
        count = (rows + size - 1) / size;
        together = round_up(threads, 12);
        block = size;
        for (int chunks : {2, 3, 4, 6, 12})
            if (chunks * size <= 512) block = chunks * size;
    }
    int rows_of(long chunk) const { return (int)std::min<long>(size, rows - chunk * size); }
    long room() const { return (long)std::min<long>(together, count) * size; }

    // Call `work(chunk, first row, row count, first packed row)` for all chunks, and `add(steps, fresh)` after every
    // `together` chunks.
    template <class N, class Work, class Add>
    void each(int threads, Work&& work, Add&& add) const {
        for (long first = 0; first < count; first += together) {
            const long last = std::min(count, first + together);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
            for (long chunk = first; chunk < last; chunk++)
                work(chunk, chunk * size, rows_of(chunk), (chunk - first) * size);
            const long held = std::min(rows, last * size) - first * size;
            add((held + N::K_STEP - 1) / N::K_STEP, first == 0);
        }
    }

    template <class Work>
    void each(int threads, Work&& work) const {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (long chunk = 0; chunk < count; chunk++) work(chunk * size, rows_of(chunk));
    }
};

// A LayerNorm: its weights, and the activations saved for backward: z = (x - mean) / std, and 1 / std.
template <class N>
struct Norm {
    int depth;
    const float *weight, *bias;
    typename N::Item* z;  // null without a backward pass
    float* scale;

    // y = z * weight + bias for a row of x.
    template <class X>
    void apply(const typename X::Item* x, long row, float eps, typename N::Item* y) const {
        const NormStats by = norm_stats_of<X>(x, depth, eps);
        if (z != nullptr) scale[row] = by.scale;
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const Vec normal = (load_partial<X>(x + c, left) - by.mean) * by.scale;
            if (z != nullptr) store_partial<N>(z + row * depth + c, normal, left);
            store_partial<N>(
                y + c, normal * load_partial<Float32>(weight + c, left) + load_partial<Float32>(bias + c, left), left);
        }
    }

    // The same y from z.
    void again(long row, typename N::Item* y) const {
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            store_partial<N>(y + c,
                             load_partial<N>(z + row * depth + c, left) * load_partial<Float32>(weight + c, left) +
                                 load_partial<Float32>(bias + c, left),
                             left);
        }
    }

    // With g = weight * grad_y: grad_x = residual + scale * (g - mean(g) - z * mean(g * z)). Sums for weight and bias
    // are padded to whole vectors, and so is grad_y.
    template <class X>
    void back(long row, const float* grad_y, const typename X::Item* residual, typename X::Item* grad_x,
              float* grad_weight, float* grad_bias) const {
        const typename N::Item* normal = z + row * depth;
        Vec all = Vec{}, along = Vec{};
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const Vec from = load_partial<Float32>(grad_y + c, left), here = load_partial<N>(normal + c, left);
            const Vec g = from * load_partial<Float32>(weight + c, left);
            all += g;
            along += g * here;
            store(grad_weight + c, load(grad_weight + c) + from * here);
            store(grad_bias + c, load(grad_bias + c) + from);
        }
        const float mean_g = add_up(all) / depth, mean_gz = add_up(along) / depth;
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const Vec g = load_partial<Float32>(grad_y + c, left) * load_partial<Float32>(weight + c, left);
            const Vec through = scale[row] * (g - mean_g - load_partial<N>(normal + c, left) * mean_gz);
            store_partial<X>(grad_x + c, load_partial<X>(residual + c, left) + through, left);
        }
    }
};

// Packed weights `(outputs, inputs)` with their bias, or null if it is added elsewhere.
template <class N>
struct Layer {
    const typename N::KPack* packed;
    const float* bias;
    int inputs, outputs;

    // GEMM of `count` rows; the epilogue gets (row, output, sums + bias).
    template <class Epilogue>
    void operator()(const typename N::Item* rows, int count, Epilogue&& epilogue) const {
        gemm<N>(rows, inputs, count, packed, inputs, outputs, 0, panels(outputs), [&](int r, int c, Vec sum) {
            epilogue(r, c, bias == nullptr ? sum : sum + load_partial<Float32>(bias + c, outputs - c));
        });
    }
};

// Drop path scale of a branch, one per sample of `span` rows.
struct DropPathScale {
    const float* factors;  // null: 1
    long span;

    // The scales of a range of rows.
    const float* of(long first, int count) const {
        float* rows = scratch<float>(2, count);
        for (int r = 0; r < count; r++) rows[r] = factors == nullptr ? 1.0f : factors[(first + r) / span];
        return rows;
    }
};

// to = drop_scale * from for the rows of a chunk, in N, unless null; their sum is added to `sums`.
template <class X, class N>
static inline void scale_rows(const typename X::Item* from, int count, int depth, const float* drop_scale,
                              typename N::Item* to, float* sums) {
    for (int r = 0; r < count; r++) {
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const Vec g = drop_scale[r] * load_partial<X>(from + (size_t)r * depth + c, left);
            store(sums + c, load(sums + c) + g);
            if (to != nullptr) store_partial<N>(to + (size_t)r * depth + c, g, left);
        }
    }
}

// Backward of norm + linear for one chunk: from the gradient of the output to that of the input of the norm.
template <class X, class N>
static inline void back_through_norm(const Layer<N>& layer, const Norm<N>& norm, const typename N::Item* into,
                                     long first, int count, const typename X::Item* residual, typename X::Item* grad_x,
                                     float* sums) {
    const int wide = round_up(norm.depth, LANES);
    float* grad_normed = scratch<float>(2, (size_t)count * wide);
    layer(into, count, [&](int r, int c, Vec sum) { store(grad_normed + (size_t)r * wide + c, sum); });
    for (int r = 0; r < count; r++) {
        const size_t at = (size_t)(first + r) * norm.depth;
        norm.template back<X>(first + r, grad_normed + (size_t)r * wide, residual + at, grad_x + at, sums, sums + wide);
    }
}

// Derivative of GELU, Phi(x) + x phi(x), with absolute error 1.1e-4: 1/2 + x Q(x^2) for |x| <= 4.25, constrained to
// about 0 and 1 at the ends; Q of degree 8, minimax.
static inline Vec fast_gelu_slope(Vec x) {
    const Vec z = min(max(x, broadcast(-4.25f)), broadcast(4.25f)), u = z * z;
    Vec q = broadcast(6.462388840e-10f);
    q = q * u - 5.987620102e-8f;
    q = q * u + 2.416316802e-6f;
    q = q * u - 5.609971434e-5f;
    q = q * u + 8.348197797e-4f;
    q = q * u - 8.382532807e-3f;
    q = q * u + 5.765006242e-2f;
    q = q * u - 2.639647738e-1f;
    q = q * u + 7.973457398e-1f;
    return z * q + 0.5f;
}

// gelu(x) and its derivative to the accuracy of N; in fp32 from Phi(x) = gelu(x) / x.
template <class N>
static inline Vec gelu_and_slope(Vec x, Vec* slope) {
    const Vec y = N::gelu(x);
    if constexpr (sizeof(typename N::Item) == 2) {
        *slope = fast_gelu_slope(x);
    } else {
        const Vec prob = x == 0.0f ? broadcast(0.5f) : y / x;
        *slope = prob + x * 0.39894228f * N::exponential(x * x * -0.5f);
    }
    return y;
}

template <class N>
static inline void pack_norm(const Norm<N>& norm, long first, int count, const Packed<N>& to, long step) {
    typename N::Item* fresh = scratch<typename N::Item>(0, (size_t)count * norm.depth);
    for (int r = 0; r < count; r++) norm.again(first + r, fresh + (size_t)r * norm.depth);
    pack_rows<N>(fresh, norm.depth, count, norm.depth, to, step);
}

// GEMM with a deferred epilogue: `work(column, sums)` gets LANES columns of all rows, with row stride PANEL. A heavy
// epilogue is cheaper here than with live accumulators.
template <class N, class Work>
static inline void by_strips(const Layer<N>& layer, const typename N::Item* rows, int count, Work&& work) {
    float* sums = scratch<float>(3, (size_t)count * PANEL);
    for (int p = 0; p < panels(layer.outputs); p++) {
        gemm<N>(rows, layer.inputs, count, layer.packed, layer.inputs, layer.outputs, p, p + 1,
                [&](int r, int c, Vec sum) { store(sums + (size_t)r * PANEL + c - p * PANEL, sum); });
        for (int c = p * PANEL; c < std::min(layer.outputs, (p + 1) * PANEL); c += LANES) work(c, sums + c - p * PANEL);
    }
}

// out = gelu(sums + bias), and the input of GELU in `hidden` unless null; `left` columns remain up to the end.
template <class N, bool WHOLE>
static inline void gelu_strip(const float* sums, Vec bias, int count, int depth, int left, typename N::Item* hidden,
                              typename N::Item* answers) {
    if (WHOLE) left = LANES;  // a compile-time constant
    for (int r = 0; r < count; r++) {
        const Vec x = load(sums + (size_t)r * PANEL) + bias;
        if (hidden != nullptr) store_partial<N>(hidden + (size_t)r * depth, x, left);
        store_partial<N>(answers + (size_t)r * depth, N::gelu(x), left);
    }
}

// From `sums`, the gradient of gelu(x), to that of x, row-major and packed; recomputes gelu(x), packed. The outer loop
// is over columns, so that packed panels are written sequentially: twice as fast.
template <class N, bool WHOLE>
static inline void gelu_back_strip(const typename N::Item* x, const float* sums, int count, int depth, int left,
                                   typename N::Item* grad_x, typename N::KPack* answers, typename N::KPack* gradients,
                                   float* total) {
    if (WHOLE) left = LANES;
    Vec all = Vec{};
    auto step = [&](int r, int held) {
        Vec answer[N::K_STEP], gradient[N::K_STEP];
        for (int s = 0; s < N::K_STEP; s++) {
            answer[s] = gradient[s] = Vec{};
            if (s >= held) continue;
            const size_t here = (size_t)(r + s) * depth;
            Vec slope;
            answer[s] = gelu_and_slope<N>(load_partial<N>(x + here, left), &slope);
            gradient[s] = load(sums + (size_t)(r + s) * PANEL) * slope;
            all += gradient[s];
            store_partial<N>(grad_x + here, gradient[s], left);
        }
        pack_vectors(answer, answers + (size_t)r / N::K_STEP * LANES);
        pack_vectors(gradient, gradients + (size_t)r / N::K_STEP * LANES);
    };
    int r = 0;
    for (; r + N::K_STEP <= count; r += N::K_STEP) step(r, N::K_STEP);
    if (r < count) step(r, count - r);
    store(total, load(total) + all);
}
