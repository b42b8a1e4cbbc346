// Exports for native/winograd.py: 3 x 3 convolutions of dense heads and restorers.

#include "arguments.h"
#include "winograd.h"
#include "upsampled.h"

// Arguments of `convolve_3x3` (SmallConvolution).
struct Convolve3x3Args {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    const float* packed;  // (PARTS, panels)
    const float* bias;    // (outputs), padded to whole vectors
    int outputs;
    const void* add;  // as y, or null
    float slope;      // of negative values
    void* y;          // (batch, height, width, outputs)
    int threads;
};

template <class X>
static void convolve_3x3(const Convolve3x3Args& a) {
    typedef typename X::Item Item;
    convolve_3x3<X>({(const Item*)a.x, a.batch, a.height, a.width, a.channels, a.packed, a.bias, a.outputs,
                     (const Item*)a.add, a.slope, (Item*)a.y},
                    a.threads);
}

extern "C" {
SIZE_OF(Convolve3x3Args)
SIZE_OF(AddUpsampledArgs)

#define FOR(name, X) \
    void vitrail_convolve_3x3_##name(const Convolve3x3Args& a) { convolve_3x3<X>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16)
#endif

void vitrail_add_upsampled(const AddUpsampledArgs& a) { add_upsampled(a); }
}
