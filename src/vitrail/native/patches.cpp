// What native/patches.py calls: patches of pictures and squares of tokens as rows of a product.

#include "convolution.h"

// Write the patches of one line of a picture, `depth` numbers each: channel by channel, row by row, as filters lie.
// Pictures are fp32 planes; what lies outside is zero.
template <class N>
static void gather_line(const float* picture, int channels, int height, int width, int size, int line, int columns,
                        int depth, typename N::Item* to) {
    typedef typename N::Item Item;
    const int wide = columns * size;
    Item* row = scratch<Item>(7, round_up(wide, LANES));
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            const int y = line * size + i, held = y < height ? width : 0;
            const float* from = picture + ((long)c * height + y) * width;
            int x = 0;
            for (; x + LANES <= held; x += LANES) N::write(row + x, load(from + x));
            for (; x < held; x++) row[x] = N::round(from[x]);
            for (; x < wide; x++) row[x] = 0;
            Item* at = to + (c * size + i) * size;
            for (int p = 0; p < columns; p++) std::memcpy(at + (long)p * depth, row + p * size, size * sizeof(Item));
        }
    }
    for (int p = 0; p < columns; p++)
        for (int i = channels * size * size; i < depth; i++) to[(long)p * depth + i] = 0;
}

// y = norm(patches(x) W + b), (batch, rows * columns, outputs). `weight` is null where no norm follows.
template <class N>
static void embed(const float* x, int batch, int channels, int height, int width, int size, int rows, int columns,
                  const void* packed, int depth, const float* bias, int outputs, const float* weight,
                  const float* shift, float eps, void* y_, int threads) {
    typedef typename N::Item Item;
    const int lines = batch * rows;
    const int chunk = std::max(1, rows_at_a_time((long)lines * columns, depth * sizeof(Item), threads) / columns);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int start = 0; start < lines; start += chunk) {
        const int some = std::min(chunk, lines - start);
        Item* gathered = scratch<Item>(5, (size_t)chunk * columns * depth);
        for (int i = 0; i < some; i++)
            gather_line<N>(x + (long)((start + i) / rows) * channels * height * width, channels, height, width, size,
                           (start + i) % rows, columns, depth, gathered + (long)i * columns * depth);
        Item* y = (Item*)y_ + (long)start * columns * outputs;
        finish_rows<N>(PLAIN, y, outputs, bias, nullptr, 0, outputs, gathered, depth, some * columns,
                       (const typename N::Word*)packed, depth, 0, panels(outputs));
        if (weight != nullptr) layer_norm_rows<N>(y, some * columns, outputs, weight, shift, eps);
    }
}

// y = norm(squares(x)) W + b: windows of tokens that touch each other, normalised as one row each.
template <class N>
static void merge(const void* x_, int batch, const Windows& w, const void* packed, const float* bias, int outputs,
                  float eps, void* y_, int threads) {
    typedef typename N::Item Item;
    const Item* x = (const Item*)x_;
    const long size = (long)w.height * w.width * w.channels, all = batch * w.count();
    const int depth = w.depth();
    share_rows(all, depth * sizeof(Item), threads, [&](long start, int count) {
        Item* gathered = scratch<Item>(5, (size_t)count * depth);
        for (int r = 0; r < count; r++) {
            const long picture = (start + r) / w.count();
            Item* to = gathered + (long)r * depth;
            gather(x + picture * size, x + batch * size, w, start + r - picture * w.count(), to);
            normalise<N>(to, depth, eps, to);
        }
        finish_rows<N>(PLAIN, (Item*)y_ + start * outputs, outputs, bias, nullptr, 0, outputs, gathered, depth, count,
                       (const typename N::Word*)packed, depth, 0, panels(outputs));
    });
}

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_embed_##name(const float* x, int batch, int channels, int height, int width, int size, int rows,      \
                              int columns, const void* packed, int depth, const float* bias, int outputs,              \
                              const float* weight, const float* shift, float eps, void* y, int threads) {              \
        embed<N>(x, batch, channels, height, width, size, rows, columns, packed, depth, bias, outputs, weight, shift,  \
                 eps, y, threads);                                                                                     \
    }                                                                                                                  \
    void vitrail_merge_##name(const void* x, int batch, int height, int width, int channels, int size,                 \
                              const void* packed, const float* bias, int outputs, float eps, void* y, int threads) {   \
        const int rows = (height + size - 1) / size, columns = (width + size - 1) / size;                              \
        merge<N>(x, batch, {height, width, channels, size, size, 0, 0, rows, columns}, packed, bias, outputs, eps, y,  \
                 threads);                                                                                             \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
