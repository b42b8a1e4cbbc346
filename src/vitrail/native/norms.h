// Norms that keep their scale and shift, because nothing that could take them follows.

#pragma once

#include "products.h"

// LayerNorm of a row in its place; weight and shift in whole vectors.
template <class N>
static inline void layer_norm(typename N::Item* row, int depth, const float* weight, const float* shift, float eps) {
    Lanes sums = Lanes{};
    for (int c = 0; c < depth; c += LANES) sums += get<N>(row + c, depth - c);
    const float mean = add_up(sums) / depth;
    float var = 0;
    for (int c = 0; c < depth; c += LANES) {
        const Lanes d = get<N>(row + c, depth - c) - mean;
        var += add_up(d * d);
    }
    var -= (round_up(depth, LANES) - depth) * mean * mean;  // what `get` read as 0 beyond the last
    const float scale = 1.0f / std::sqrt(var / depth + eps);
    for (int c = 0; c < depth; c += LANES)
        put<N>(row + c, (get<N>(row + c, depth - c) - mean) * scale * load(weight + c) + load(shift + c), depth - c);
}
