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
        multiply([=](int row, auto held, int c, const Vec* column) {
            const Vec offset = load(bias + c);
            for (int r = 0; r < held; r++)
                store_partial<To>(y + (size_t)(row + r) * outputs + c, column[r] + offset, outputs - c);
        });
        if (weight != nullptr) layer_norm_rows<To>(y, some.count, outputs, weight, shift, eps);
    });
}

// Arguments of `convolve`.
struct ConvolveArgs {
    MapArgs map;  // without scale and shift
    WindowArgs window;
    WeightsArgs weights;
    NormArgs norm;
    void* y;    // (batch, tall, wide, outputs)
    int lines;  // output rows of a block
    int threads;
};

template <class N, class To>
static void convolve(const ConvolveArgs& a) {
    const WeightsArgs& w = a.weights;
    convolve<N, To>(Convolution<N, N>::of(a.map, a.window, w.panels, w.outputs), w.bias, a.norm.weight, a.norm.bias,
                    a.norm.eps, a.y, a.lines, a.threads);
}

extern "C" {
SIZE_OF(ConvolveArgs)

#define FOR(name, N, To) \
    void vitrail_convolve_##name(const ConvolveArgs& a) { convolve<N, To>(a); }

FOR(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16, BFloat16)
FOR(bfloat16_float16, BFloat16, Float16)
#endif
}
