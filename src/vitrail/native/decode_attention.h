// Attention of a decoder: one query at a time to the keys of a cache.

#pragma once

#include "activations.h"
#include "simd.h"

// Keys and values of a head: those of position p are `dim` floats at `at(p)`. The width of a head is padded with zeros
// to whole vectors.

// score[p] = q . k_p for `count` keys; return the largest.
template <class At>
static inline float scores_of(const float* q, int dim, long count, At&& key, float* scores) {
    float most = -INFINITY;
    for (long p = 0; p < count; p++) {
        const float* k = key(p);
        Vec sum = load(q) * load(k);
        for (int i = LANES; i < dim; i += LANES) sum += load(q + i) * load(k + i);
        scores[p] = add_up(sum);
        most = std::max(most, scores[p]);
    }
    return most;
}

// scores = e^(scores - most), padded with zeros to a whole vector; return their sum.
static inline float exponentials_of(float* scores, long count, float most) {
    for (long p = count; p % LANES; p++) scores[p] = -INFINITY;
    Vec sum = Vec{};
    for (long p = 0; p < count; p += LANES) {
        const Vec e = exponential(load(scores + p) - most);
        store(scores + p, e);
        sum += e;
    }
    float total = add_up(sum);
    for (long p = count; p % LANES; p++) total -= scores[p];  // e^-87 each
    return total;
}

template <int V, class At>
static inline void mix_values(const float* probs, float factor, long count, At&& value, float* out) {
    Vec sums[V] = {};
    for (long p = 0; p < count; p++) {
        const float* at = value(p);
        const Vec prob = broadcast(probs[p]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[v] += prob * load(at + v * LANES);
    }
    for (int v = 0; v < V; v++) store(out + v * LANES, sums[v] * factor);
}

// out = softmax(q k^T) v for one query and one head, all `dim` wide.
template <class Key, class Value>
static inline void attend_to(const float* q, int dim, long count, Key&& key, Value&& value, float* scores, float* out) {
    const float most = scores_of(q, dim, count, key, scores);
    const float factor = 1.0f / exponentials_of(scores, count, most);
    for (int at = 0; at < dim; at += 4 * LANES) {
        const auto shifted = [&](long p) { return value(p) + at; };
        switch (std::min(4, (dim - at) / LANES)) {
            case 1: mix_values<1>(scores, factor, count, shifted, out + at); break;
            case 2: mix_values<2>(scores, factor, count, shifted, out + at); break;
            case 3: mix_values<3>(scores, factor, count, shifted, out + at); break;
            default: mix_values<4>(scores, factor, count, shifted, out + at);
        }
    }
}
