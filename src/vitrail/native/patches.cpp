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

// Arguments of `embed`.
struct EmbedArgs {
    const float* x;        // (batch, channels, height, width)
    const float* factors;  // (channels), of pixels
    const float* shifts;   // (channels), of pixels
    int batch, channels, height, width;
    int size;           // of a patch
    int rows, columns;  // of patches
    WeightsArgs weights;
    NormArgs norm;
    void* y;  // (batch, rows * columns, outputs)
    int threads;
};

// y = norm(patches(x) W + b)
template <class N>
static void embed(const EmbedArgs& a) {
    typedef typename N::Item Item;
    typedef typename N::Residual X;
    const LinearWeights<N> filters = LinearWeights<N>::of(a.weights);
    const Pixels pixels = {a.factors, a.shifts};
    const int batch = a.batch, channels = a.channels, height = a.height, width = a.width, size = a.size;
    const int rows = a.rows, columns = a.columns, threads = a.threads;
    const int lines = batch * rows, depth = filters.inputs, outputs = filters.outputs;
    const int chunk = std::max(1, rows_at_a_time((long)lines * columns, depth * sizeof(Item), threads) / columns);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int start = 0; start < lines; start += chunk) {
        const int some = std::min(chunk, lines - start);
        Item* gathered = scratch<Item>(5, (size_t)chunk * columns * depth);
        for (int i = 0; i < some; i++)
            gather_line<N>(a.x + (long)((start + i) / rows) * channels * height * width, pixels, channels, height,
                           width, size, (start + i) % rows, columns, depth, gathered + (long)i * columns * depth);
        auto* y = (typename X::Item*)a.y + (long)start * columns * outputs;
        layer<N, X>(PLAIN, filters, gathered, some * columns, NO_NORM, nullptr, y);
        if (a.norm.weight != nullptr)
            layer_norm_rows<X>(y, some * columns, outputs, a.norm.weight, a.norm.bias, a.norm.eps);
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

// Arguments of `merge`.
struct MergeArgs {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    int size;  // cells in a row of a square
    WeightsArgs weights;
    float eps;  // of the norm
    void* y;    // (batch, squares, outputs)
    int threads;
};

template <class N>
static void merge(const MergeArgs& a) {
    merge<N>(a.x, a.batch, {a.height, a.width, a.channels, a.size}, LinearWeights<N>::of(a.weights), a.eps, a.y,
             a.threads);
}

extern "C" {
SIZE_OF(EmbedArgs)
SIZE_OF(MergeArgs)

#define FOR(name, N)                                               \
    void vitrail_embed_##name(const EmbedArgs& a) { embed<N>(a); } \
    void vitrail_merge_##name(const MergeArgs& a) { merge<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
