// 3 x 3 convolutions by Winograd's minimal filtering F(4x4, 3x3): 36 products for 16 outputs instead of 144.
//
//     a tile of 4 x 4 outputs reads 6 x 6 inputs, which overlap by two with the next tile:
//
//       V = B^T d B        36 values of each input channel          (input transform)
//       M_e = V_e U_e      36 GEMMs over input channels, tiles are rows
//       Y = A^T M A        16 outputs                               (output transform)
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1; the filters U = G g G^T are
// transformed in fp64 when they are packed. All products are in fp32: rounding errors grow about tenfold over the
// direct sum, which bf16 could not afford.

#pragma once

#include "gemm.h"

constexpr int TILE = 4, SEEN = 6, PARTS = SEEN * SEEN;
constexpr size_t TRANSFORMED = 4 << 20;  // bytes of the transformed inputs of a block: within a share of the L3

// A 3 x 3 convolution with padding 1 of maps (batch, height, width, channels): y = act(conv(x) + bias + add), where
// act(v) = max(v, slope v).
template <class X>
struct SmallConvolution {
    const typename X::Item* x;
    int batch, height, width, channels;
    const float* packed;  // (PARTS, panels)
    const float* bias;
    int outputs;
    const typename X::Item* add;  // or null
    float slope;
    typename X::Item* y;

    int tall() const { return (height + TILE - 1) / TILE; }
    int wide() const { return (width + TILE - 1) / TILE; }
    long tiles() const { return (long)batch * tall() * wide(); }
};

// Position of a tile: image, first row, first column.
struct TilePlace {
    int image, y, x;
    template <class X>
    TilePlace(const SmallConvolution<X>& conv, long tile)
        : image((int)(tile / (conv.tall() * conv.wide()))),
          y((int)(tile / conv.wide() % conv.tall()) * TILE),
          x((int)(tile % conv.wide()) * TILE) {}
};

// One row of B^T: six inputs to six values.
static IN_REGISTERS void transform_input(const Vec* d, int step, Vec* to, int to_step) {
    const Vec a = d[4 * step] - 4.0f * d[2 * step], b = d[3 * step] - 4.0f * d[step];
    const Vec c = d[4 * step] - d[2 * step], e = 2.0f * (d[3 * step] - d[step]);
    to[0] = 4.0f * d[0] - 5.0f * d[2 * step] + d[4 * step];
    to[to_step] = a + b;
    to[2 * to_step] = a - b;
    to[3 * to_step] = c + e;
    to[4 * to_step] = c - e;
    to[5 * to_step] = 4.0f * d[step] - 5.0f * d[3 * step] + d[5 * step];
}

// One row of A^T: six products to four outputs.
static IN_REGISTERS void transform_output(const Vec* m, int step, Vec* to, int to_step) {
    const Vec s = m[step] + m[2 * step], d = m[step] - m[2 * step];
    const Vec s2 = m[3 * step] + m[4 * step], d2 = m[3 * step] - m[4 * step];
    to[0] = m[0] + s + s2;
    to[to_step] = d + 2.0f * d2;
    to[2 * to_step] = s + 4.0f * s2;
    to[3 * to_step] = d + 8.0f * d2 + m[5 * step];
}

// V of one tile: `to` is row `tile` of the first part; parts are `apart` and vectors of channels LANES floats apart.
template <class X>
static void transform_tile(const SmallConvolution<X>& conv, TilePlace at, float* to, size_t apart) {
    const int channels = conv.channels;
    const typename X::Item* outside = nothing<typename X::Item>(channels);
    const typename X::Item* from[PARTS];
    for (int i = 0; i < PARTS; i++) {
        const int y = at.y + i / SEEN - 1, x = at.x + i % SEEN - 1;
        const bool inside = y >= 0 && y < conv.height && x >= 0 && x < conv.width;
        from[i] = inside ? conv.x + (((size_t)at.image * conv.height + y) * conv.width + x) * channels : outside;
    }
    for (int c = 0; c < channels; c += LANES) {
        Vec seen[PARTS], half[PARTS];
        for (int i = 0; i < PARTS; i++) seen[i] = load_partial<X>(from[i] + c, channels - c);
        for (int i = 0; i < SEEN; i++) transform_input(seen + i * SEEN, 1, half + i * SEEN, 1);
        for (int i = 0; i < SEEN; i++) transform_input(half + i, SEEN, seen + i, SEEN);
        for (int i = 0; i < PARTS; i++) store(to + i * apart + c, seen[i]);
    }
}

// Outputs of one tile from column `first` up to `last`; `from` is its row of the first part, of columns from `first`.
template <class X>
static void finish_tile(const SmallConvolution<X>& conv, TilePlace at, const float* from, size_t apart, int first,
                        int last) {
    const int rows = std::min(TILE, conv.height - at.y), columns = std::min(TILE, conv.width - at.x);
    for (int c = first; c < last; c += LANES) {
        Vec products[PARTS], half[TILE * SEEN], sums[TILE * TILE];
        for (int i = 0; i < PARTS; i++) products[i] = load(from + i * apart + (c - first));
        for (int i = 0; i < SEEN; i++) transform_output(products + i, SEEN, half + i, SEEN);
        for (int i = 0; i < TILE; i++) transform_output(half + i * SEEN, 1, sums + i * TILE, 1);
        const Vec bias = load(conv.bias + c);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                const size_t place = (((size_t)at.image * conv.height + at.y + i) * conv.width + at.x + j);
                Vec sum = sums[i * TILE + j] + bias;
                if (conv.add != nullptr) sum += load_partial<X>(conv.add + place * conv.outputs + c, conv.outputs - c);
                sum = max(sum * conv.slope, sum);
                store_partial<X>(conv.y + place * conv.outputs + c, sum, conv.outputs - c);
            }
    }
}

// Tiles of a block: their transformed inputs are TRANSFORMED bytes, and every thread has as many blocks.
template <class X>
static int tiles_of_block(const SmallConvolution<X>& conv, int threads) {
    const long fitting = std::max<long>(ROWS, TRANSFORMED / (PARTS * sizeof(float) * round_up(conv.channels, LANES)));
    const long shares = (conv.tiles() + fitting * threads - 1) / (fitting * threads) * threads;
    return round_up((int)((conv.tiles() + shares - 1) / shares), ROWS);
}

template <class X>
static void convolve_3x3(const SmallConvolution<X>& conv, int threads) {
    const long tiles = conv.tiles();
    const int stride = round_up(conv.channels, LANES), block = tiles_of_block(conv, threads);
    const size_t filters = (size_t)round_up(conv.outputs, LANES) * conv.channels;
    const size_t apart = (size_t)block * stride, parted = (size_t)block * PANEL;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long start = 0; start < tiles; start += block) {
        const int count = (int)std::min<long>(block, tiles - start);
        float* inputs = scratch<float>(0, PARTS * apart);
        float* products = scratch<float>(1, PARTS * parted);
        for (int t = 0; t < count; t++)
            transform_tile(conv, TilePlace(conv, start + t), inputs + (size_t)t * stride, apart);
        for (int p = 0; p < panels(conv.outputs); p++) {
            const int first = p * PANEL, last = std::min(round_up(conv.outputs, LANES), first + PANEL);
            for (int e = 0; e < PARTS; e++) {
                float* to = products + e * parted;
                gemm<Float32>(inputs + e * apart, stride, count, conv.packed + e * filters, conv.channels, conv.outputs,
                              p, p + 1, [=](int r, int c, Vec sum) { store(to + (size_t)r * PANEL + c - first, sum); });
            }
            for (int t = 0; t < count; t++)
                finish_tile(conv, TilePlace(conv, start + t), products + (size_t)t * PANEL, parted, first, last);
        }
    }
}
