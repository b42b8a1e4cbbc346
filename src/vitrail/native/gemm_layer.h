// Linear layer and MLP, generic over the weight format.
//
// A weight format has `inputs`, `outputs` and two steps, so that rows used by several GEMMs are prepared once:
// `ready<From>(rows, count, eps)` normalises contiguous rows (mean 0, variance 1; not if eps is negative) and casts or
// quantises them, `gathered<From>(row, count, eps)` does it with those that `row(r)` points at;
// `multiply(ready, count, first, last, epilogue)` calls `epilogue(row, output, x W + b)` for panels `first` up to
// `last`.

#pragma once

#include "arguments.h"
#include "layers.h"

constexpr float NO_NORM = -1;

// Epilogue that adds the bias first.
template <class Epilogue>
struct AddBias {
    Epilogue epilogue;
    const float* bias;
    IN_REGISTERS void operator()(int r, int c, Vec sum) const { epilogue(r, c, sum + load(bias + c)); }
    IN_REGISTERS void operator()(int r, int c, Vec sum, Vec next) const {
        give_two(epilogue, r, c, sum + load(bias + c), next + load(bias + c + LANES), 0);
    }
    IN_REGISTERS void touch(int r, int c) const { touch_results(epilogue, r, c, 0); }
};

// Weights in the compute dtype.
template <class N>
struct LinearWeights {
    typedef N Numbers;
    typedef typename N::Item Item;
    static constexpr bool STREAMED = N::AMX;  // whether rows that are read in place need not stay in the cache
    static constexpr size_t ROOM = 96 << 10;  // bytes for the tokens of an attention branch, without its intermediates
    const typename N::KPack* packed;
    const float* bias;
    int inputs, outputs;

    static LinearWeights of(const WeightsArgs& a) {
        return {(const typename N::KPack*)a.panels, a.bias, a.inputs, a.outputs};
    }

    // Without a norm, rows in the compute dtype are read in place.
    template <class From>
    const Item* ready(const typename From::Item* rows, int count, float eps) const {
        if constexpr (std::is_same_v<From, N>) {
            if (eps < 0) return rows;
        }
        return gathered<From>([=](int r) { return rows + (size_t)r * inputs; }, count, eps);
    }

    template <class From, class Row>
    const Item* gathered(Row&& row, int count, float eps) const {
        Item* fresh = scratch<Item>(5, (size_t)count * inputs);
        for (int r = 0; r < count; r++) {
            const typename From::Item* from = row(r);
            const NormStats by = eps < 0 ? NormStats{0, 1} : norm_stats_of<From>(from, inputs, eps);
            normalize_row<From, N>(from, inputs, by, fresh + (size_t)r * inputs);
        }
        return fresh;
    }

    template <class Epilogue>
    void multiply(const Item* rows, int count, int first, int last, Epilogue epilogue) const {
        gemm<N>(rows, inputs, count, packed, inputs, outputs, first, last, AddBias<Epilogue>{epilogue, bias});
    }
};

// y = epilogue(x W + b) of prepared rows, for outputs from panel `first` up to `last`.
template <class To, class Weights, class Ready>
static inline void multiply(int epilogue, const Weights& weights, const Ready& ready, int count, int first, int last,
                            const typename To::Item* add, typename To::Item* y) {
    const int outputs = weights.outputs;
    with_epilogue<To, typename Weights::Numbers>(epilogue, y, outputs, add, outputs, outputs,
                                                 [&](auto emit) { weights.multiply(ready, count, first, last, emit); });
}

// y = epilogue(norm(x) W + b) of a block of rows.
template <class From, class To, class Weights>
static inline void part_of_layer(int epilogue, const Weights& weights, const typename From::Item* x, int count,
                                 float eps, int first, int last, const typename To::Item* add, typename To::Item* y) {
    multiply<To>(epilogue, weights, weights.template ready<From>(x, count, eps), count, first, last, add, y);
}

// The same for all outputs.
template <class From, class To, class Weights>
static inline void layer(int epilogue, const Weights& weights, const typename From::Item* x, int count, float eps,
                         const typename To::Item* add, typename To::Item* y) {
    part_of_layer<From, To>(epilogue, weights, x, count, eps, 0, panels(weights.outputs), add, y);
}

// The same for all rows.
template <class From, class To, class Weights>
static void linear(int epilogue, const Weights& weights, const typename From::Item* x, long rows, float eps,
                   const typename To::Item* add, typename To::Item* y, int threads) {
    const long inputs = weights.inputs, outputs = weights.outputs;
    // On AMX, rows that are read in place are streamed past weights that stay in L2 (group_bytes in amx_gemm.h).
    const bool streamed = std::is_same_v<From, typename Weights::Numbers> && Weights::STREAMED && eps < 0;
    const size_t bytes = inputs * sizeof(*x) / (streamed ? 4 : 1);
    parallel_layer(rows, bytes, weights.outputs, threads, [&](long start, int count, int first, int last) {
        part_of_layer<From, To>(epilogue, weights, x + start * inputs, count, eps, first, last,
                                moved(add, start * outputs), y + start * outputs);
    });
}

// silu(a) * b of rows (a, b), (count, 2 width), in place: the results are (count, width).
template <class N>
static inline void gate_rows(typename N::Item* rows, int count, int width) {
    for (int r = 0; r < count; r++) {
        const typename N::Item* from = rows + (size_t)r * 2 * width;
        typename N::Item* to = rows + (size_t)r * width;
        for (int c = 0; c < width; c += LANES) {
            const Vec a = load_partial<N>(from + c, width - c), b = load_partial<N>(from + width + c, width - c);
            store_partial<N>(to + c, a / (1.0f + N::exponential(-a)) * b, width - c);
        }
    }
}

// y = add + norm2(act(norm(x) W1 + b1)) W2 + b2 of a block of rows; y has the residual dtype.
template <class From, class Weights, class X = typename Weights::Numbers::Residual>
static inline void mlp_rows(int activation, const Weights& one, const Weights& two, const typename From::Item* x,
                            int count, float eps, float inner_eps, const typename X::Item* add, typename X::Item* y) {
    typedef typename Weights::Numbers N;
    auto* between = scratch<typename N::Item>(6, (size_t)count * one.outputs);
    layer<From, N>(activation == SILU_GATE ? PLAIN : activation, one, x, count, eps, nullptr, between);
    if (activation == SILU_GATE) gate_rows<N>(between, count, two.inputs);
    layer<N, X>(add == nullptr ? PLAIN : ADD, two, between, count, inner_eps, add, y);
}

// The same for all rows, in blocks, so that hidden activations stay in the cache.
template <class Weights, class X = typename Weights::Numbers::Residual>
static void mlp(int activation, const Weights& one, const Weights& two, const typename X::Item* x, long rows, float eps,
                float inner_eps, const typename X::Item* add, typename X::Item* y, int threads) {
    parallel_rows(rows, one.outputs * sizeof(*x), threads, [&](long start, int count) {
        mlp_rows<X>(activation, one, two, x + start * one.inputs, count, eps, inner_eps,
                    moved(add, start * two.outputs), y + start * two.outputs);
    });
}

// Ends of a residual branch: y = x + result W + b, or y = x + norm(result W + b). Row r of the results belongs to row
// `place(r)` of x and y, or nowhere if that is negative. y may alias x.
struct AddResult {
    template <class X, class Weights, class Ready, class Place>
    void operator()(const Weights& weights, const Ready& ready, int rows, Place place, const typename X::Item* x,
                    typename X::Item* y) const {
        const int outputs = weights.outputs;
        weights.multiply(ready, rows, 0, panels(outputs), [=](int r, int c, Vec sum) {
            const long row = place(r);
            if (row < 0) return;
            const size_t at = (size_t)row * outputs + c;
            store_partial<X>(y + at, sum + load_partial<X>(x + at, outputs - c), outputs - c);
        });
    }
};

struct AddNormedResult {
    const float *weight, *shift;  // padded to whole vectors
    float eps;

    static AddNormedResult of(const NormArgs& a) { return {a.weight, a.bias, a.eps}; }

    // Results stay in fp32 until their row is complete.
    template <class X, class Weights, class Ready, class Place>
    void operator()(const Weights& weights, const Ready& ready, int rows, Place place, const typename X::Item* x,
                    typename X::Item* y) const {
        const int outputs = weights.outputs, wide = round_up(outputs, LANES);
        float* results = scratch<float>(4, (size_t)rows * wide);
        weights.multiply(ready, rows, 0, panels(outputs),
                         [=](int r, int c, Vec sum) { store(results + (size_t)r * wide + c, sum); });
        for (int r = 0; r < rows; r++) {
            const long row = place(r);
            if (row < 0) continue;
            const float* result = results + (size_t)r * wide;
            const NormStats by = norm_stats_of<Float32>(result, outputs, eps);
            for (int c = 0; c < outputs; c += LANES) {
                const size_t at = (size_t)row * outputs + c;
                const Vec normed = (load(result + c) - by.mean) * by.scale * load(weight + c) + load(shift + c);
                store_partial<X>(y + at, normed + load_partial<X>(x + at, outputs - c), outputs - c);
            }
        }
    }
};

// y = x + norm(gelu(x W1 + b1) W2 + b2), in blocks of rows.
template <class Weights, class X = typename Weights::Numbers::Residual>
static void post_norm_mlp(const Weights& one, const Weights& two, const typename X::Item* x, long rows,
                          const AddNormedResult& end, typename X::Item* y, int threads) {
    typedef typename Weights::Numbers N;
    parallel_rows(rows, one.outputs * sizeof(*x), threads, [&](long start, int count) {
        auto* between = scratch<typename N::Item>(6, (size_t)count * one.outputs);
        layer<X, N>(GELU, one, x + start * one.inputs, count, NO_NORM, nullptr, between);
        end.template operator()<X>(
            two, two.template ready<N>(between, count, NO_NORM), count, [](int r) { return (long)r; },
            x + start * two.outputs, y + start * two.outputs);
    });
}

// Arguments of `linear`: y = epilogue(norm(x) W + b).
struct LinearArgs {
    const void* x;  // (rows, inputs)
    long rows;
    WeightsArgs weights;
    void* y;          // (rows, outputs)
    const void* add;  // (rows, outputs) for ADD, else null
    int epilogue;
    float eps;  // of the norm; negative without one
    int threads;
};

template <class From, class To, class Weights>
static void linear(const LinearArgs& a) {
    linear<From, To>(a.epilogue, Weights::of(a.weights), (const typename From::Item*)a.x, a.rows, a.eps,
                     (const typename To::Item*)a.add, (typename To::Item*)a.y, a.threads);
}

// Arguments of `mlp`: y = add + norm2(act(norm(x) W1 + b1)) W2 + b2.
struct MlpArgs {
    const void* x;  // (rows, inputs)
    long rows;
    WeightsArgs first, second;
    void* y;          // (rows, outputs)
    const void* add;  // (rows, outputs), or null
    int activation;   // an Epilogue
    float eps;        // of the norm; negative without one
    float inner_eps;  // of the norm of the activations; negative without one
    int threads;
};

template <class X, class Weights>
static void mlp(const MlpArgs& a) {
    mlp<Weights, X>(a.activation, Weights::of(a.first), Weights::of(a.second), (const typename X::Item*)a.x, a.rows,
                    a.eps, a.inner_eps, (const typename X::Item*)a.add, (typename X::Item*)a.y, a.threads);
}

// Arguments of `post_norm_mlp`: y = x + norm(gelu(x W1 + b1) W2 + b2).
struct PostNormMlpArgs {
    const void* x;  // (rows, inputs)
    long rows;
    WeightsArgs first, second;
    NormArgs norm;
    void* y;  // as x
    int threads;
};

template <class X, class Weights>
static void post_norm_mlp(const PostNormMlpArgs& a) {
    post_norm_mlp<Weights, X>(Weights::of(a.first), Weights::of(a.second), (const typename X::Item*)a.x, a.rows,
                              AddNormedResult::of(a.norm), (typename X::Item*)a.y, a.threads);
}
