// What native/convolution.py calls: a convolution as one product, with the LayerNorm that may follow it.

#include "convolution.h"

// y = norm(windows(x) W + b). x is (batch, height, width, channels); a window has `depth` numbers, zeros at the end
// included. `weight` is null where no norm follows.
template <class N>
static void convolve(const void* x_, int batch, const Windows& w, const void* packed, int depth, const float* bias,
                     int outputs, const float* weight, const float* shift, float eps, void* y_, int threads) {
    typedef typename N::Item Item;
    const Item* x = (const Item*)x_;
    Item* y = (Item*)y_;
    const long size = (long)w.height * w.width * w.channels, rows = batch * w.count();
    const Item* end = x + batch * size;
    share_rows(rows, depth * sizeof(Item), threads, [&](long start, int count) {
        Item* gathered = scratch<Item>(5, (size_t)count * depth);
        for (int r = 0; r < count; r++) {
            const long row = start + r, picture = row / w.count();
            Item* to = gathered + (long)r * depth;
            gather(x + picture * size, end, w, row - picture * w.count(), to);
            for (int i = w.depth(); i < depth; i++) to[i] = 0;
        }
        Item* out = y + start * outputs;
        finish_rows<N>(PLAIN, out, outputs, bias, nullptr, 0, outputs, gathered, depth, count,
                       (const typename N::Word*)packed, depth, 0, panels(outputs));
        if (weight != nullptr) layer_norm_rows<N>(out, count, outputs, weight, shift, eps);
    });
}

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_convolve_##name(const void* x, int batch, int height, int width, int channels, int size, int stride,  \
                                 int top, int left, int rows, int columns, const void* packed, int depth,              \
                                 const float* bias, int outputs, const float* weight, const float* shift, float eps,   \
                                 void* y, int threads) {                                                               \
        const Windows windows = {height, width, channels, size, stride, top, left, rows, columns};                     \
        convolve<N>(x, batch, windows, packed, depth, bias, outputs, weight, shift, eps, y, threads);                  \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
