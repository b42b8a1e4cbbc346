// 3 x 3 convolutions by Winograd's minimal filtering F(m x m, 3 x 3), with m = 4 or 2.
//
//     a tile of m x m outputs reads s x s inputs, s = m + 2, which overlap by two with the next tile:
//
//       V = B^T d B        s s values of each input channel            (input transform)
//       M_e = V_e U_e      s s GEMMs over input channels, tiles are rows
//       Y = A^T M A        m m outputs                                 (output transform)
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1; the filters U = G g G^T are
// transformed in fp64 when they are packed. For 16 outputs, m = 4 has 36 products, m = 2 has 64, and the sum itself has
// 144. Rounding V and U causes errors that grow about tenfold with m = 4, which bf16 could not afford: its products are
// in fp32. With m = 2 the variance of an output's error is 25 / 9 of that of the sum: each value of V adds 4 inputs,
// and A^T U A has 6.25 times the variance of a filter's tap, 4 * 6.25 = 25 instead of 9.

#pragma once

#include "arguments.h"
#include "gemm.h"

// F(4x4, 3x3): rows of B^T and A^T.
struct Tiles4 {
    static constexpr int TILE = 4;
    static size_t block_bytes() { return 4 << 20; }  // transformed inputs of a block: within a share of the L3

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

    static IN_REGISTERS void transform_output(const Vec* m, int step, Vec* to, int to_step) {
        const Vec s = m[step] + m[2 * step], d = m[step] - m[2 * step];
        const Vec s2 = m[3 * step] + m[4 * step], d2 = m[3 * step] - m[4 * step];
        to[0] = m[0] + s + s2;
        to[to_step] = d + 2.0f * d2;
        to[2 * to_step] = s + 4.0f * s2;
        to[3 * to_step] = d + 8.0f * d2 + m[5 * step];
    }
};

// F(2x2, 3x3).
struct Tiles2 {
    static constexpr int TILE = 2;
    static size_t block_bytes() { return l2_bytes() * 2 / 5; }

    static IN_REGISTERS void transform_input(const Vec* d, int step, Vec* to, int to_step) {
        to[0] = d[0] - d[2 * step];
        to[to_step] = d[step] + d[2 * step];
        to[2 * to_step] = d[2 * step] - d[step];
        to[3 * to_step] = d[step] - d[3 * step];
    }

    static IN_REGISTERS void transform_output(const Vec* m, int step, Vec* to, int to_step) {
        to[0] = m[0] + m[step] + m[2 * step];
        to[to_step] = m[step] - m[2 * step] - m[3 * step];
    }
};

// A 3 x 3 convolution with padding 1 of maps (batch, height, width, channels): y = act(conv(x) + bias + add), where
// act(v) = max(v, slope v). Inputs are in X, transformed inputs and filters in N, outputs in To; F is the algorithm.
template <class X, class N, class To, class F>
struct SmallConvolution {
    static constexpr int TILE = F::TILE, SEEN = TILE + 2, PARTS = SEEN * SEEN;
    const typename X::Item* x;
    int batch, height, width, channels;
    const typename N::KPack* packed;  // (panels, PARTS)
    const float* bias;
    int outputs;
    const typename To::Item* add;  // or null
    float slope;
    typename To::Item* y;

    int tall() const { return (height + TILE - 1) / TILE; }
    int wide() const { return (width + TILE - 1) / TILE; }
    long tiles() const { return (long)batch * tall() * wide(); }
};

// Position of a tile: image, first row, first column.
struct TilePlace {
    int image, y, x;
    template <class C>
    TilePlace(const C& conv, long tile)
        : image((int)(tile / (conv.tall() * conv.wide()))),
          y((int)(tile / conv.wide() % conv.tall()) * C::TILE),
          x((int)(tile % conv.wide()) * C::TILE) {}
};

// Tiles side by side: the first, and the row of the transformed inputs that it is.
struct Strip {
    TilePlace at;
    int row, count;
};

// V of a strip: `to` is the first part, of rows `stride` apart; parts are `apart`. Tiles share the columns in which
// they overlap, so the transform down a column is computed once.
template <class X, class N, class To, class F>
static void transform_strip(const SmallConvolution<X, N, To, F>& conv, Strip strip, typename N::Item* to, int stride,
                            size_t apart) {
    typedef typename X::Item Item;
    constexpr int TILE = F::TILE, SEEN = TILE + 2;
    const int channels = conv.channels, columns = strip.count * TILE + 2;
    const Item* outside = nothing<Item>(channels);
    const Item** from = scratch<const Item*>(2, columns * SEEN);
    for (int j = 0; j < columns; j++)
        for (int i = 0; i < SEEN; i++) {
            const int y = strip.at.y + i - 1, x = strip.at.x + j - 1;
            const bool inside = y >= 0 && y < conv.height && x >= 0 && x < conv.width;
            from[j * SEEN + i] =
                inside ? conv.x + (((size_t)strip.at.image * conv.height + y) * conv.width + x) * channels : outside;
        }
    for (int c = 0; c < channels; c += LANES) {
        Vec seen[SEEN * SEEN];  // columns of the tile, transformed
        auto column = [&](int j, Vec* transformed) {
            Vec values[SEEN];
            for (int i = 0; i < SEEN; i++) values[i] = load_partial<X>(from[j * SEEN + i] + c, channels - c);
            F::transform_input(values, 1, transformed, 1);
        };
        column(0, seen);
        column(1, seen + SEEN);
        typename N::Item* row = to + (size_t)strip.row * stride + c;
        for (int t = 0; t < strip.count; t++, row += stride) {
            for (int j = 2; j < SEEN; j++) column(t * TILE + j, seen + j * SEEN);
            for (int i = 0; i < SEEN; i++) {
                Vec values[SEEN];
                F::transform_input(seen + i, SEEN, values, 1);
                for (int j = 0; j < SEEN; j++) N::write(row + (i * SEEN + j) * apart, values[j]);
            }
            for (int i = 0; i < 2 * SEEN; i++) seen[i] = seen[TILE * SEEN + i];
        }
    }
}

// Outputs of one tile from column `first` up to `last`; `from` is its row of the first part, of columns from `first`.
template <class X, class N, class To, class F>
static void finish_tile(const SmallConvolution<X, N, To, F>& conv, TilePlace at, const float* from, size_t apart,
                        int first, int last) {
    constexpr int TILE = F::TILE, SEEN = conv.SEEN, PARTS = conv.PARTS;
    const int rows = std::min(TILE, conv.height - at.y), columns = std::min(TILE, conv.width - at.x);
    for (int c = first; c < last; c += LANES) {
        Vec products[PARTS], half[TILE * SEEN], sums[TILE * TILE];
        for (int i = 0; i < PARTS; i++) products[i] = load(from + i * apart + (c - first));
        for (int i = 0; i < SEEN; i++) F::transform_output(products + i, SEEN, half + i, SEEN);
        for (int i = 0; i < TILE; i++) F::transform_output(half + i * SEEN, 1, sums + i * TILE, 1);
        const Vec bias = load(conv.bias + c);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                const size_t place = (((size_t)at.image * conv.height + at.y + i) * conv.width + at.x + j);
                Vec sum = sums[i * TILE + j] + bias;
                if (conv.add != nullptr) sum += load_partial<To>(conv.add + place * conv.outputs + c, conv.outputs - c);
                sum = max(sum * conv.slope, sum);
                store_partial<To>(conv.y + place * conv.outputs + c, sum, conv.outputs - c);
            }
    }
}

// Tiles of a block: their transformed inputs are F::block_bytes(), and every thread has as many blocks.
template <class X, class N, class To, class F>
static int tiles_of_block(const SmallConvolution<X, N, To, F>& conv, int threads) {
    const size_t bytes = conv.PARTS * sizeof(typename N::Item) * round_up(conv.channels, LANES);
    const long fitting = std::max<long>(ROWS, F::block_bytes() / bytes);
    const long shares = (conv.tiles() + fitting * threads - 1) / (fitting * threads) * threads;
    return round_up((int)((conv.tiles() + shares - 1) / shares), ROWS);
}

// The next size of an odd number of cache lines: arrays that far apart use different sets of the L1.
template <class Item>
static inline size_t odd_lines(size_t count) {
    constexpr size_t LINE = 64 / sizeof(Item);
    return ((count + LINE - 1) / LINE | 1) * LINE;
}

// Blocks of tiles are parallel; if they are fewer than threads, so are groups of panels, which transform the inputs
// once each.
template <class X, class N, class To, class F>
static void convolve_3x3(const SmallConvolution<X, N, To, F>& conv, int threads) {
    typedef typename N::Item Item;
    constexpr int PARTS = conv.PARTS;
    const long tiles = conv.tiles();
    const int stride = round_up(conv.channels, LANES), block = tiles_of_block(conv, threads),
              all = panels(conv.outputs);
    const int depth = conv.channels / N::K_STEP;
    const size_t apart = odd_lines<Item>((size_t)block * stride), parted = odd_lines<float>((size_t)block * PANEL);
    const int blocks = (int)((tiles + block - 1) / block), groups = blocks < threads ? std::min(all, threads) : 1;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < blocks * groups; item++) {
        const long start = (long)(item / groups) * block;
        const int group = item % groups, count = (int)std::min<long>(block, tiles - start);
        Item* inputs = scratch<Item>(0, PARTS * apart);
        float* products = scratch<float>(1, PARTS * parted);
        for (int t = 0, some; t < count; t += some) {
            const TilePlace at(conv, start + t);
            some = std::min(count - t, conv.wide() - at.x / F::TILE);
            transform_strip(conv, {at, t, some}, inputs, stride, apart);
        }
        for (int p = all * group / groups; p < all * (group + 1) / groups; p++) {
            const int first = p * PANEL, last = std::min(round_up(conv.outputs, LANES), first + PANEL);
            const typename N::KPack* panel = conv.packed + (size_t)first * depth * PARTS;
            for (int e = 0; e < PARTS; e++, panel += (last - first) * depth) {
                float* to = products + e * parted;
                gemm<N>(inputs + e * apart, stride, count, panel, conv.channels, last - first, 0, 1,
                        [=](int r, int c, Vec sum) { store(to + (size_t)r * PANEL + c, sum); });
            }
            for (int t = 0; t < count; t++)
                finish_tile(conv, TilePlace(conv, start + t), products + (size_t)t * PANEL, parted, first, last);
        }
    }
}

// Arguments of `convolve_3x3` (SmallConvolution).
struct Convolve3x3Args {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    const void* packed;  // (panels, PARTS)
    const float* bias;   // (outputs), padded to whole vectors
    int outputs;
    const void* add;  // as y, or null
    float slope;      // of negative values
    void* y;          // (batch, height, width, outputs)
    int threads;
};

template <class X, class N, class To, class F>
static void convolve_3x3(const Convolve3x3Args& a) {
    convolve_3x3<X, N, To, F>(
        {(const typename X::Item*)a.x, a.batch, a.height, a.width, a.channels, (const typename N::KPack*)a.packed,
         a.bias, a.outputs, (const typename To::Item*)a.add, a.slope, (typename To::Item*)a.y},
        a.threads);
}
