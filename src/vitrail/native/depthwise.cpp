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
    int before;                              // activation of the input; zeros around the map are not activated
    float scale, shift;                      // applied after it
    const float *scale_after, *shift_after;  // (channels) of the activated result, padded to vectors; or null

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
template <class N, class X, class To, int SIZE>
static void convolve_rows(const Depthwise& conv, const typename X::Item* x, int block, int top, int bottom,
                          bool activate, const typename To::Item* add, typename To::Item* y) {
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
            const size_t start = row * line + (size_t)cell * conv.channels + first;
            typename To::Item* to = y + start;
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
                    if (add != nullptr) z += load_partial<To>(add + start + at, left);
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
    const long size = (long)conv.height * conv.width * conv.channels, items = (long)batch * conv.blocks();
    const int most = std::max(1, conv.height / (2 * conv.size));
    const int bands = (int)std::min<long>(most, std::max(1L, (3L * threads + items - 1) / items));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long item = 0; item < items * bands; item++) {
        const long image = item / bands / conv.blocks();
        const int block = (int)(item / bands % conv.blocks()), band = (int)(item % bands);
        convolve_rows<N, X, To, SIZE>(conv, x + image * size, block, conv.height * band / bands,
                                      conv.height * (band + 1) / bands, activate,
                                      add == nullptr ? nullptr : add + image * size, y + image * size);
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

template <class N, class X, class To>
static void depthwise(const DepthwiseArgs& a) {
    const Depthwise conv = {a.height, a.width, a.channels, a.size,        a.taps,       a.bias,
                            a.before, a.scale, a.shift,    a.scale_after, a.shift_after};
    const auto* x = (const typename X::Item*)a.x;
    const auto* add = (const typename To::Item*)a.add;
    auto* y = (typename To::Item*)a.y;
    switch (a.size) {
        case 3: return depthwise<N, X, To, 3>(conv, x, a.batch, a.activate, add, y, a.threads);
        case 7: return depthwise<N, X, To, 7>(conv, x, a.batch, a.activate, add, y, a.threads);
        default: return depthwise<N, X, To, 0>(conv, x, a.batch, a.activate, add, y, a.threads);
    }
}

extern "C" {
SIZE_OF(DepthwiseArgs)

#define FOR(name, N, X, To) \
    void vitrail_depthwise_##name(const DepthwiseArgs& a) { depthwise<N, X, To>(a); }

FOR(float32, Float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16, BFloat16, BFloat16)
FOR(bfloat16_float16, BFloat16, BFloat16, Float16)
FOR(float16, BFloat16, Float16, Float16)
#endif
}
