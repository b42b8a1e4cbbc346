// Exports for native/depthwise.py: depthwise convolutions of channels-last maps.
//
// A block of channels of one image is convolved row by row. Its last `size` rows are kept in fp32 with zeros around
// them, each read from memory once:
//
//     ring of rows         | 0 0 | cell 0 | cell 1 | ... | 0 0 |   BLOCK vectors a cell
//     sums in registers          [ TILE cells of an output row, one vector of channels ]

#include "arguments.h"
#include "layers.h"

constexpr int BLOCK_VECTORS = 2;
constexpr int TILE_CELLS = 8;
constexpr int AHEAD = 16;  // cells between a prefetch and its use

enum Before { NOTHING = 0, RELU = 1, RELU_SQUARED = 2 };

// Sizes of the map, and the filters: `taps` is (vectors of channels, size size, LANES), `bias` is padded to vectors.
struct Depthwise {
    int height, width, channels, size;
    const float *taps, *bias;
    int before;          // activation of the input; zeros around the map are not activated
    float scale, shift;  // applied after it

    int reach() const { return size / 2; }
    int cells() const { return round_up(width, TILE_CELLS) + 2 * reach(); }
    int blocks() const { return (channels + BLOCK_VECTORS * LANES - 1) / (BLOCK_VECTORS * LANES); }
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
template <class N, class X, int SIZE>
static void convolve_rows(const Depthwise& conv, const typename X::Item* x, int block, int top, int bottom,
                          bool activate, typename X::Item* y) {
    const int wide = BLOCK_VECTORS * LANES, first = block * wide, reach = conv.reach(), size = conv.size;
    const int vectors = std::min(BLOCK_VECTORS, (conv.channels - first + LANES - 1) / LANES);
    const size_t length = (size_t)conv.cells() * wide, line = (size_t)conv.width * conv.channels;
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
            widen_row<X>(conv, x + i * line, first, vectors, ring + i % size * length + (size_t)reach * wide);
    };
    for (int i = top - reach; i < top + reach; i++) fetch(i);
    for (int row = top; row < bottom; row++) {
        fetch(row + reach);
        for (int i = 0; i < size; i++) rows[i] = row_of(row + i - reach);
        for (int cell = 0; cell < conv.width; cell += TILE_CELLS) {
            const int some = std::min(TILE_CELLS, conv.width - cell);
            typename X::Item* to = y + row * line + (size_t)cell * conv.channels + first;
            for (int v = 0; v < vectors; v++) {
                const int c = first + v * LANES, left = conv.channels - c;
                Vec sums[TILE_CELLS];
                for (int t = 0; t < TILE_CELLS; t++)
                    __builtin_prefetch(to + (size_t)(t + TILE_CELLS) * conv.channels + v * LANES, 1);
                tile_of<SIZE>(rows.data(), (size_t)cell * wide + v * LANES, conv.taps + (size_t)c * size * size,
                              load(conv.bias + c), size, sums);
                for (int t = 0; t < some; t++)
                    store_partial<X>(to + (size_t)t * conv.channels + v * LANES, activate ? N::gelu(sums[t]) : sums[t],
                                     left);
            }
        }
    }
}

// y = act(depthwise(before(x))) of a batch. Parallel over images, blocks of channels and, if these are few, bands of
// rows.
template <class N, class X, int SIZE>
static void depthwise(const Depthwise& conv, const void* x, int batch, bool activate, void* y, int threads) {
    typedef typename X::Item Item;
    const long size = (long)conv.height * conv.width * conv.channels, items = (long)batch * conv.blocks();
    const int most = std::max(1, conv.height / (2 * conv.size));
    const int bands = (int)std::min<long>(most, std::max(1L, (3L * threads + items - 1) / items));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long item = 0; item < items * bands; item++) {
        const long image = item / bands / conv.blocks();
        const int block = (int)(item / bands % conv.blocks()), band = (int)(item % bands);
        convolve_rows<N, X, SIZE>(conv, (const Item*)x + image * size, block, conv.height * band / bands,
                                  conv.height * (band + 1) / bands, activate, (Item*)y + image * size);
    }
}

template <class N, class X>
static void depthwise(const Depthwise& conv, const void* x, int batch, int activate, void* y, int threads) {
    switch (conv.size) {
        case 3: return depthwise<N, X, 3>(conv, x, batch, activate, y, threads);
        case 7: return depthwise<N, X, 7>(conv, x, batch, activate, y, threads);
        default: return depthwise<N, X, 0>(conv, x, batch, activate, y, threads);
    }
}

// Arguments of `depthwise`.
struct DepthwiseArgs {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    int size;            // side of the filters
    const float* taps;   // (vectors of channels, size, size, LANES)
    const float* bias;   // (channels), padded to whole vectors
    int before;          // activation of the input
    float scale, shift;  // applied after it
    int activate;        // GELU of the result
    void* y;             // as x
    int threads;
};

template <class N, class X>
static void depthwise(const DepthwiseArgs& a) {
    depthwise<N, X>({a.height, a.width, a.channels, a.size, a.taps, a.bias, a.before, a.scale, a.shift}, a.x, a.batch,
                    a.activate, a.y, a.threads);
}

extern "C" {
SIZE_OF(DepthwiseArgs)

#define FOR(name, N, X) \
    void vitrail_depthwise_##name(const DepthwiseArgs& a) { depthwise<N, X>(a); }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16, BFloat16)
FOR(float16, BFloat16, Float16)
#endif
}
