// Exports for native/depthwise.py: depthwise convolutions of channels-last maps.
//
// A block of channels of one image is convolved row by row. Its last `size` rows are kept in fp32 with zeros around
// them, each read from memory once:
//
//     ring of rows         | 0 0 | cell 0 | cell 1 | ... | 0 0 |   BLOCK vectors a cell
//     sums in registers          [ TILE cells of an output row, one vector of channels ]

#include "gemm_layer.h"

constexpr int BLOCK_VECTORS = 2;
constexpr int TILE_CELLS = 8;
constexpr int AHEAD = 16;  // cells between a prefetch and its use

enum Before { NOTHING = 0, RELU = 1, RELU_SQUARED = 2 };

// Sizes of the map, and the filters: `taps` is (vectors of channels, size size, LANES), `bias` is padded to vectors.
struct Depthwise {
    int height, width, channels, size;
    const float *taps, *bias;
    int before;                              // activation of the input; zeros around the map are not activated
    float scale, shift;                      // applied after it
    const float *scale_after, *shift_after;  // (channels) of the activated result, padded to vectors; or null

    int reach() const { return size / 2; }
    int cells() const { return round_up(width, TILE_CELLS) + 2 * reach(); }
    int blocks() const { return (channels + BLOCK_VECTORS * LANES - 1) / (BLOCK_VECTORS * LANES); }
};

// Rows of a map, of which those from `first` on are in memory.
template <class Item>
struct MapRows {
    Item* at;
    int first;
    size_t line;  // numbers of a row
    Item* of(int row) const { return at + (row - first) * line; }
};

// One row of a block of channels in fp32, activated.
template <class From>
static inline void widen_row(const Depthwise& conv, const typename From::Item* x, int first, int vectors, float* row) {
    const int wide = BLOCK_VECTORS * LANES;
    for (int cell = 0; cell < conv.width; cell++) {
        // Cells are far apart: the processor's own prefetch ends at each page.
        __builtin_prefetch(x + (size_t)(cell + AHEAD) * conv.channels + first);
        for (int v = 0; v < vectors; v++) {
            const int c = first + v * LANES;
            Vec z = load_partial<From>(x + (size_t)cell * conv.channels + c, conv.channels - c);
            if (conv.before != NOTHING) z = max(z, Vec{});
            if (conv.before == RELU_SQUARED) z = z * z * conv.scale + conv.shift;
            store(row + (size_t)cell * wide + v * LANES, z);
        }
    }
}

// Sums of TILE_CELLS output cells for one vector of channels. A constant SIZE unrolls the loops.
template <int SIZE>
static IN_REGISTERS void tile_of(const float* const* rows, size_t at, const float* taps, Vec bias, int size,
                                 Vec* sums) {
    constexpr int wide = BLOCK_VECTORS * LANES;
    const int side = SIZE > 0 ? SIZE : size;
    Vec held[TILE_CELLS];  // copied at the end: an array that is also indexed by a variable stays in memory
#pragma GCC unroll 8
    for (int t = 0; t < TILE_CELLS; t++) held[t] = bias;
    for (int i = 0; i < side; i++) {
#pragma GCC unroll 7
        for (int j = 0; j < side; j++) {
            const Vec tap = load(taps + (i * side + j) * LANES);
#pragma GCC unroll 8
            for (int t = 0; t < TILE_CELLS; t++) held[t] += tap * load(rows[i] + at + (t + j) * wide);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < TILE_CELLS; t++) sums[t] = held[t];
}

// Output rows `top` up to `bottom` of a block of channels.
template <class N, class X, class To, int SIZE>
static void convolve_rows(const Depthwise& conv, MapRows<const typename X::Item> x, int block, int top, int bottom,
                          bool activate, const typename To::Item* add, MapRows<typename To::Item> y) {
    const int wide = BLOCK_VECTORS * LANES, first = block * wide, reach = conv.reach(), size = conv.size;
    const int vectors = std::min(BLOCK_VECTORS, (conv.channels - first + LANES - 1) / LANES);
    const size_t length = (size_t)conv.cells() * wide;
    float* ring = scratch<float>(0, (size + 1) * length);
    for (float* row = ring; row < ring + (size + 1) * length; row += length) {
        const size_t left = (size_t)reach * wide, right = left + (size_t)conv.width * wide;
        std::fill(row, row + (row == ring + size * length ? right : left), 0.0f);
        std::fill(row + right, row + length, 0.0f);
    }
    const float* blank = ring + size * length;
    std::vector<const float*> rows(size);
    auto row_of = [&](int i) -> const float* {
        return i < 0 || i >= conv.height ? blank : ring + (i + size) % size * length;
    };
    auto fetch = [&](int i) {
        if (i >= 0 && i < conv.height)
            widen_row<X>(conv, x.of(i), first, vectors, ring + i % size * length + (size_t)reach * wide);
    };
    for (int i = top - reach; i < top + reach; i++) fetch(i);
    for (int row = top; row < bottom; row++) {
        fetch(row + reach);
        for (int i = 0; i < size; i++) rows[i] = row_of(row + i - reach);
        for (int cell = 0; cell < conv.width; cell += TILE_CELLS) {
            const int some = std::min(TILE_CELLS, conv.width - cell);
            const size_t start = (size_t)cell * conv.channels + first;
            typename To::Item* to = y.of(row) + start;
            for (int v = 0; v < vectors; v++) {
                const int c = first + v * LANES, left = conv.channels - c;
                Vec sums[TILE_CELLS];
                for (int t = 0; t < TILE_CELLS; t++)
                    __builtin_prefetch(to + (size_t)(t + TILE_CELLS) * conv.channels + v * LANES, 1);
                tile_of<SIZE>(rows.data(), (size_t)cell * wide + v * LANES, conv.taps + (size_t)c * size * size,
                              load(conv.bias + c), size, sums);
                for (int t = 0; t < some; t++) {
                    const size_t at = (size_t)t * conv.channels + v * LANES;
                    Vec z = activate ? N::gelu(sums[t]) : sums[t];
                    if (conv.scale_after != nullptr) z = z * load(conv.scale_after + c) + load(conv.shift_after + c);
                    if (add != nullptr) z += load_partial<To>(add + row * y.line + start + at, left);
                    store_partial<To>(to + at, z, left);
                }
            }
        }
    }
}

// y = act(depthwise(before(x))) * scale + shift (+ add) of a batch. Parallel over images, blocks of channels and, if
// these are few, bands of rows.
template <class N, class X, class To, int SIZE>
static void depthwise(const Depthwise& conv, const typename X::Item* x, int batch, bool activate,
                      const typename To::Item* add, typename To::Item* y, int threads) {
    const size_t line = (size_t)conv.width * conv.channels;
    const long size = conv.height * line, items = (long)batch * conv.blocks();
    const int most = std::max(1, conv.height / (2 * conv.size));
    const int bands = (int)std::min<long>(most, std::max(1L, (3L * threads + items - 1) / items));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long item = 0; item < items * bands; item++) {
        const long image = item / bands / conv.blocks();
        const int block = (int)(item / bands % conv.blocks()), band = (int)(item % bands);
        convolve_rows<N, X, To, SIZE>(conv, {x + image * size, 0, line}, block, conv.height * band / bands,
                                      conv.height * (band + 1) / bands, activate, moved(add, image * size),
                                      {y + image * size, 0, line});
    }
}

// Arguments of `depthwise`.
struct DepthwiseArgs {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    int size;                  // side of the filters
    const float* taps;         // (vectors of channels, size, size, LANES)
    const float* bias;         // (channels), padded to whole vectors
    int before;                // activation of the input
    float scale, shift;        // applied after it
    int activate;              // GELU of the result
    const float* scale_after;  // (channels) of the activated result, padded to whole vectors; or null
    const float* shift_after;
    const void* add;  // as y, or null
    void* y;          // (batch, height, width, channels)
    int threads;
};

static Depthwise depthwise_of(const DepthwiseArgs& a) {
    return {a.height, a.width, a.channels, a.size,        a.taps,       a.bias,
            a.before, a.scale, a.shift,    a.scale_after, a.shift_after};
}

template <class N, class X, class To>
static void depthwise(const DepthwiseArgs& a) {
    const Depthwise conv = depthwise_of(a);
    const auto* x = (const typename X::Item*)a.x;
    const auto* add = (const typename To::Item*)a.add;
    auto* y = (typename To::Item*)a.y;
    switch (a.size) {
        case 3: return depthwise<N, X, To, 3>(conv, x, a.batch, a.activate, add, y, a.threads);
        case 7: return depthwise<N, X, To, 7>(conv, x, a.batch, a.activate, add, y, a.threads);
        default: return depthwise<N, X, To, 0>(conv, x, a.batch, a.activate, add, y, a.threads);
    }
}

// y = x + act(depthwise(before(norm(x) W1 + b1))) * scale W2 + b2 of one image, in strips of rows, so that the hidden
// map stays in the cache. A strip needs `reach` rows above and below it; those of the strip before are moved, not
// computed again:
//
//     strip 0      | made .......... made | made made |
//     strip 1                     | moved | moved made | made ...... made made |
template <class N, int SIZE, class X = typename N::Residual>
static void branch_of_image(const Depthwise& conv, const LinearWeights<N>& one, const LinearWeights<N>& two, float eps,
                            bool activate, int strip, const typename X::Item* x, typename X::Item* y) {
    typedef typename N::Item Item;
    const size_t line = (size_t)conv.width * conv.channels;
    const int reach = conv.reach(), height = conv.height;
    const MapRows<const typename X::Item> inputs = {x, 0, (size_t)conv.width * one.inputs};
    const MapRows<typename X::Item> outputs = {y, 0, (size_t)conv.width * two.outputs};
    MapRows<Item> hidden = {scratch<Item>(6, (size_t)(strip + 2 * reach) * line), 0, line};
    int made = 0;  // rows of the hidden map
    for (int top = 0; top < height; top += strip) {
        const int bottom = std::min(top + strip, height), last = std::min(height, bottom + reach);
        const int first = std::max(0, top - reach);
        std::memmove(hidden.at, hidden.of(first), (made - first) * line * sizeof(Item));
        hidden.first = first;
        if (last > made)
            layer<X, N>(PLAIN, one, inputs.of(made), (last - made) * conv.width, eps, nullptr, hidden.of(made));
        made = last;
        const MapRows<Item> mixed = {scratch<Item>(7, (size_t)strip * line), top, line};
        for (int block = 0; block < conv.blocks(); block++)
            convolve_rows<N, N, N, SIZE>(conv, {hidden.at, first, line}, block, top, bottom, activate, nullptr, mixed);
        layer<N, X>(ADD, two, mixed.at, (bottom - top) * conv.width, NO_NORM, inputs.of(top), outputs.of(top));
    }
}

// Arguments of `depthwise_branch`: the convolution is that of the hidden map.
struct DepthwiseBranchArgs {
    DepthwiseArgs conv;  // x (batch, height, width, inputs of `first`), `add` null, y as x
    WeightsArgs first, second;
    float eps;  // of the norm
};

template <class N, int SIZE>
static void depthwise_branch(const DepthwiseBranchArgs& a, const Depthwise& conv) {
    typedef typename N::Residual X;
    const auto one = LinearWeights<N>::of(a.first), two = LinearWeights<N>::of(a.second);
    const size_t bytes = (size_t)conv.width * conv.channels * sizeof(typename N::Item);
    const int fitting = std::max<int>(1, l2_bytes() / (2 * bytes)), strips = (conv.height + fitting - 1) / fitting;
    const long size = (long)conv.height * conv.width * one.inputs;
#pragma omp parallel for schedule(dynamic) num_threads(a.conv.threads)
    for (int image = 0; image < a.conv.batch; image++)
        branch_of_image<N, SIZE>(conv, one, two, a.eps, a.conv.activate, (conv.height + strips - 1) / strips,
                                 (const typename X::Item*)a.conv.x + image * size,
                                 (typename X::Item*)a.conv.y + image * size);
}

template <class N>
static void depthwise_branch(const DepthwiseBranchArgs& a) {
    const Depthwise conv = depthwise_of(a.conv);
    switch (conv.size) {
        case 3: return depthwise_branch<N, 3>(a, conv);
        case 7: return depthwise_branch<N, 7>(a, conv);
        default: return depthwise_branch<N, 0>(a, conv);
    }
}

extern "C" {
SIZE_OF(DepthwiseArgs)
SIZE_OF(DepthwiseBranchArgs)

#define FOR(name, N, X, To) \
    void vitrail_depthwise_##name(const DepthwiseArgs& a) { depthwise<N, X, To>(a); }

#define BRANCH(name, N) \
    void vitrail_depthwise_branch_##name(const DepthwiseBranchArgs& a) { depthwise_branch<N>(a); }

FOR(float32, Float32, Float32, Float32)
BRANCH(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16, BFloat16, BFloat16)
FOR(bfloat16_float16, BFloat16, BFloat16, Float16)
FOR(float16, BFloat16, Float16, Float16)
BRANCH(bfloat16, BFloat16)
#endif
}
