// What a step of training does to rows between products, and back: LayerNorm, GELU, and the sum with the residual.
//
// X is how the residual is stored, N what products take and give. All sums are in fp32.

#pragma once

#include "norms.h"
#include "sums.h"

// The gradient of a normed row, on top of what comes past the norm:
//   z = (x - mean) * scale, g = weight * into_y, into_x = past + scale * (g - mean(g) - z * mean(g * z))
// Those of weight and bias are added to `into_weight` and `into_bias`, which have room for whole vectors.
template <class X, class N>
static inline void normed_back(const typename X::Item* x, int depth, Standard by, const float* weight,
                               const typename N::Item* into_y, const typename X::Item* past, typename X::Item* into_x,
                               float* into_weight, float* into_bias) {
    Lanes all = Lanes{}, along = Lanes{};
    for (int c = 0; c < depth; c += LANES) {
        const int left = depth - c;
        const Lanes from = get<N>(into_y + c, left), z = (get<X>(x + c, left) - by.mean) * by.scale;
        const Lanes g = from * get<Single>(weight + c, left);
        all += g;
        along += g * z;  // beyond the last channel g is 0
        store(into_weight + c, load(into_weight + c) + from * z);
        store(into_bias + c, load(into_bias + c) + from);
    }
    const float mean_g = add_up(all) / depth, mean_gz = add_up(along) / depth;
    for (int c = 0; c < depth; c += LANES) {
        const int left = depth - c;
        const Lanes z = (get<X>(x + c, left) - by.mean) * by.scale;
        const Lanes g = get<N>(into_y + c, left) * get<Single>(weight + c, left);
        const Lanes through = by.scale * (g - mean_g - z * mean_gz);
        put<X>(into_x + c, past == nullptr ? through : through + get<X>(past + c, left), left);
    }
}

// gelu(x) and its slope, Phi(x) + x phi(x), with Phi(x) = gelu(x) / x.
template <class N>
static inline Lanes gelu_and_slope(Lanes x, Lanes* slope) {
    const Lanes y = N::gelu(x);
    const Lanes share = x == 0.0f ? every(0.5f) : y / x;
    *slope = share + x * 0.39894228f * N::exponential(x * x * -0.5f);
    return y;
}
