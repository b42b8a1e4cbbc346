// A layer and an MLP of rows, whatever their weights are stored in.
//
// A kind of weights has `inputs` and `outputs` and two steps, so that what several products read is made ready once:
// `ready(row, count, eps)` brings rows to mean 0 and variance 1, unless eps is negative, and to what is multiplied;
// `multiply(ready, count, first, last, finish)` gives `finish(row, output, x W + b)` for panels `first` up to `last`.

#pragma once

#include "layers.h"

constexpr float NO_NORM = -1;

// Weights as precise as the rows.
template <class N>
struct Dense {
    typedef N Numbers;
    typedef typename N::Item Item;
    static constexpr size_t ROOM = 96 << 10;  // for the tokens of an attention branch, beside all that is made of them
    const typename N::Word* packed;
    const float* bias;
    int inputs, outputs;

    // Without a norm rows are read where they lie, one after the other.
    template <class Row>
    const Item* ready(Row&& row, int count, float eps) const {
        if (eps < 0) return row(0);
        Item* fresh = scratch<Item>(5, (size_t)count * inputs);
        for (int r = 0; r < count; r++) normalise<N>(row(r), inputs, eps, fresh + (size_t)r * inputs);
        return fresh;
    }

    template <class Finish>
    void multiply(const Item* rows, int count, int first, int last, Finish finish) const {
        const float* offset = bias;
        product<N>(rows, inputs, count, packed, inputs, outputs, first, last,
                   [=](int r, int c, Lanes sum) { finish(r, c, sum + load(offset + c)); });
    }
};

// y = finish(norm(x) W + b) of some rows, for outputs from panel `first` up to `last`.
template <class Weights>
static inline void part_of_layer(int finish, const Weights& weights, const typename Weights::Item* x, int count,
                                 float eps, int first, int last, const typename Weights::Item* add,
                                 typename Weights::Item* y) {
    const int inputs = weights.inputs, outputs = weights.outputs;
    const auto ready = weights.ready([=](int r) { return x + (size_t)r * inputs; }, count, eps);
    finish_with<typename Weights::Numbers>(finish, y, outputs, add, outputs, outputs, [&](auto put) {
        weights.multiply(ready, count, first, last, put);
    });
}

// The same for all outputs.
template <class Weights>
static inline void layer(int finish, const Weights& weights, const typename Weights::Item* x, int count, float eps,
                         const typename Weights::Item* add, typename Weights::Item* y) {
    part_of_layer(finish, weights, x, count, eps, 0, panels(weights.outputs), add, y);
}

// The same for all rows.
template <class Weights>
static void linear(int finish, const Weights& weights, const typename Weights::Item* x, long rows, float eps,
                   const typename Weights::Item* add, typename Weights::Item* y, int threads) {
    const long inputs = weights.inputs, outputs = weights.outputs;
    share_layer(rows, inputs * sizeof(*x), weights.outputs, threads, [&](long start, int count, int first, int last) {
        part_of_layer(finish, weights, x + start * inputs, count, eps, first, last, moved(add, start * outputs),
                      y + start * outputs);
    });
}

// y = add + gelu(norm(x) W1 + b1) W2 + b2 of some rows.
template <class Weights>
static inline void mlp_rows(const Weights& one, const Weights& two, const typename Weights::Item* x, int count,
                            float eps, const typename Weights::Item* add, typename Weights::Item* y) {
    auto* between = scratch<typename Weights::Item>(6, (size_t)count * one.outputs);
    layer(GELU, one, x, count, eps, nullptr, between);
    layer(add == nullptr ? PLAIN : ADD, two, between, count, NO_NORM, add, y);
}

// The same of all, some rows at a time, so that the hidden part never leaves the cache.
template <class Weights>
static void mlp(const Weights& one, const Weights& two, const typename Weights::Item* x, long rows, float eps,
                const typename Weights::Item* add, typename Weights::Item* y, int threads) {
    share_rows(rows, one.outputs * sizeof(*x), threads, [&](long start, int count) {
        mlp_rows(one, two, x + start * one.inputs, count, eps, moved(add, start * two.outputs), y + start * two.outputs);
    });
}
