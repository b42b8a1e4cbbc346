// Exports for native/patches.py: patch embedding and patch merging as GEMMs.

#include "gemm_layer.h"

// Affine map of the pixels of each channel: x * factor + shift.
struct Pixels {
    const float *factors, *shifts;
};

// Gather the patches of one row of an image, `depth` values each, in the order of the filters: channel, row, column.
// Images are fp32 planes, zero-padded before the affine map.
template <class N>
static void gather_line(const float* image, Pixels pixels, int channels, int height, int width, int size, int line,
                        int columns, int depth, typename N::Item* to) {
    typedef typename N::Item Item;
    const int wide = columns * size;
    Item* row = scratch<Item>(7, round_up(wide, LANES));
    for (int c = 0; c < channels; c++) {
        const float factor = pixels.factors[c], shift = pixels.shifts[c];
        for (int i = 0; i < size; i++) {
            const int y = line * size + i, held = y < height ? width : 0;
            const float* from = image + ((long)c * height + y) * width;
            int x = 0;
            for (; x + LANES <= held; x += LANES) N::write(row + x, load(from + x) * factor + shift);
            for (; x < held; x++) row[x] = N::round(from[x] * factor + shift);
            for (; x < wide; x++) row[x] = N::round(shift);
            Item* at = to + (c * size + i) * size;
            for (int p = 0; p < columns; p++) std::memcpy(at + (long)p * depth, row + p * size, size * sizeof(Item));
        }
    }
    for (int p = 0; p < columns; p++)
        for (int i = channels * size * size; i < depth; i++) to[(long)p * depth + i] = 0;
}

// y = norm(patches(x) W + b), (batch, rows * columns, outputs). `weight` is null without a norm.
template <class N>
static void embed(const float* x, Pixels pixels, int batch, int channels, int height, int width, int size, int rows,
                  int columns, const LinearWeights<N>& filters, const float* weight, const float* shift, float eps,
                  void* y_, int threads) {
    typedef typename N::Item Item;
    typedef typename N::Residual X;
    const int lines = batch * rows, depth = filters.inputs, outputs = filters.outputs;
    const int chunk = std::max(1, rows_at_a_time((long)lines * columns, depth * sizeof(Item), threads) / columns);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int start = 0; start < lines; start += chunk) {
        const int some = std::min(chunk, lines - start);
        Item* gathered = scratch<Item>(5, (size_t)chunk * columns * depth);
        for (int i = 0; i < some; i++)
            gather_line<N>(x + (long)((start + i) / rows) * channels * height * width, pixels, channels, height, width,
                           size, (start + i) % rows, columns, depth, gathered + (long)i * columns * depth);
        auto* y = (typename X::Item*)y_ + (long)start * columns * outputs;
        layer<N, X>(PLAIN, filters, gathered, some * columns, NO_NORM, nullptr, y);
        if (weight != nullptr) layer_norm_rows<X>(y, some * columns, outputs, weight, shift, eps);
    }
}

// A channels-last map split into squares, which may be incomplete at the right and bottom.
struct Squares {
    int height, width, channels, size;

    int columns() const { return (width + size - 1) / size; }
    long count() const { return (long)((height + size - 1) / size) * columns(); }
    int depth() const { return size * size * channels; }
};

// Copy in whole vectors; values written past the end are overwritten later. `end` is the end of readable memory.
template <class Item>
static inline void copy(const Item* from, int count, const Item* end, Item* to) {
    if (end - from < round_up(count, LANES)) {
        std::memcpy(to, from, count * sizeof(Item));
    } else {
        for (int i = 0; i < count; i += LANES) std::memcpy(to + i, from + i, LANES * sizeof(Item));
    }
}

// Gather square `index` of an image into `to`, row-major and zero-padded. `to` needs space for one more vector.
template <class Item>
static inline void gather(const Item* image, const Item* end, const Squares& s, long index, Item* to) {
    const int y = (int)(index / s.columns()) * s.size, x = (int)(index % s.columns()) * s.size;
    const int line = s.size * s.channels, held = std::min(s.size, s.width - x) * s.channels;
    for (int i = 0; i < s.size; i++, to += line) {
        const int some = y + i < s.height ? held : 0;
        if (some > 0) copy(image + ((long)(y + i) * s.width + x) * s.channels, some, end, to);
        if (some < line) std::memset(to + some, 0, (line - some) * sizeof(Item));
    }
}

// y = norm(squares(x)) W + b, with each square of tokens normalised as one row.
template <class N>
static void merge(const void* x_, int batch, const Squares& s, const LinearWeights<N>& weights, float eps, void* y_,
                  int threads) {
    typedef typename N::Item Item;
    typedef typename N::Residual X;
    const auto* x = (const typename X::Item*)x_;
    auto* y = (typename X::Item*)y_;
    const long size = (long)s.height * s.width * s.channels;
    const int depth = s.depth();
    parallel_rows(batch * s.count(), depth * sizeof(Item), threads, [&](long start, int count) {
        Item* fresh = scratch<Item>(5, (size_t)count * depth);
        auto* square = scratch<typename X::Item>(6, depth);
        for (int r = 0; r < count; r++) {
            const long image = (start + r) / s.count();
            gather(x + image * size, x + batch * size, s, start + r - image * s.count(), square);
            normalize_row<X, N>(square, depth, norm_stats_of<X>(square, depth, eps), fresh + (long)r * depth);
        }
        layer<N, X>(PLAIN, weights, fresh, count, NO_NORM, nullptr, y + start * weights.outputs);
    });
}

extern "C" {
#define FOR(name, N)                                                                                                 \
    void vitrail_embed_##name(const float* x, const float* factors, const float* shifts, int batch, int channels,    \
                              int height, int width, int size, int rows, int columns, const void* packed,            \
                              const float* bias, int depth, int outputs, const float* weight, const float* shift,    \
                              float eps, void* y, int threads) {                                                     \
        embed<N>(x, {factors, shifts}, batch, channels, height, width, size, rows, columns,                          \
                 {(const N::KPack*)packed, bias, depth, outputs}, weight, shift, eps, y, threads);                   \
    }                                                                                                                \
    void vitrail_merge_##name(const void* x, int batch, int height, int width, int channels, int size,               \
                              const void* packed, const float* bias, int outputs, float eps, void* y, int threads) { \
        const Squares squares = {height, width, channels, size};                                                     \
        merge<N>(x, batch, squares, {(const N::KPack*)packed, bias, squares.depth(), outputs}, eps, y, threads);     \
    }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
