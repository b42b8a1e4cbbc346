// Exports for native/convolution.py: convolution as implicit GEMM, with an optional LayerNorm.

#include "convolution.h"
#include "norms.h"

// y = norm(convolution(x) + b), stored in To, in blocks of `lines` output rows. `weight` is null without a norm.
template <class N, class To>
static void convolve(const Convolution<N, N>& conv, const float* bias, const float* weight, const float* shift,
                     float eps, void* y_, int lines, int threads) {
    typedef typename To::Item Item;
    const int outputs = conv.outputs;
    parallel_lines(conv, lines, weight == nullptr, threads, [&](Lines some, auto&& multiply) {
        Item* y = (Item*)y_ + some.first * outputs;
        multiply([=](int row, int held, int c, const Vec* column) {
            const Vec offset = load(bias + c);
            for (int r = 0; r < held; r++)
                store_partial<To>(y + (size_t)(row + r) * outputs + c, column[r] + offset, outputs - c);
        });
        if (weight != nullptr) layer_norm_rows<To>(y, some.count, outputs, weight, shift, eps);
    });
}

extern "C" {
#define FOR(name, N, To)                                                                                              \
    void vitrail_convolve_##name(const void* x, int batch, int height, int width, int channels, int planar, int size, \
                                 int stride, int top, int left, int tall, int wide, const void* packed,               \
                                 const float* bias, int outputs, const float* weight, const float* shift, float eps,  \
                                 void* y, int lines, int threads) {                                                   \
        convolve<N, To>({{(const N::Item*)x, height, width, channels, planar, nullptr, nullptr},                      \
                         batch,                                                                                       \
                         {size, stride, top, left},                                                                   \
                         (const N::KPack*)packed,                                                                     \
                         tall,                                                                                        \
                         wide,                                                                                        \
                         outputs},                                                                                    \
                        bias, weight, shift, eps, y, lines, threads);                                                 \
    }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16, BFloat16)
FOR(bfloat16_float16, BFloat16, Float16)
#endif
}
