// Exports for native/winograd.py: 3 x 3 convolutions of dense heads and restorers.

#include "winograd.h"
#include "upsampled.h"

extern "C" {
#define FOR(name, X)                                                                                                 \
    void vitrail_convolve_3x3_##name(const void* x, int batch, int height, int width, int channels,                  \
                                     const float* packed, const float* bias, int outputs, const void* add,           \
                                     float slope, void* y, int threads) {                                            \
        convolve_3x3<X>({(const X::Item*)x, batch, height, width, channels, packed, bias, outputs,                   \
                         (const X::Item*)add, slope, (X::Item*)y},                                                   \
                        threads);                                                                                    \
    }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16)
#endif

void vitrail_add_upsampled(const float* products, int batch, int tall, int wide, int outputs, float* y, int height,
                           int width, int add, int threads) {
    add_upsampled(products, batch, tall, wide, outputs, y, height, width, add, threads);
}
}
