// Exports for native/winograd.py: 3 x 3 convolutions of dense heads and restorers.

#include "winograd.h"
#include "upsampled.h"

extern "C" {
SIZE_OF(Convolve3x3Args)
SIZE_OF(AddUpsampledArgs)

#define FOR(name, X) \
    void vitrail_convolve_3x3_by_4_##name(const Convolve3x3Args& a) { convolve_3x3<X, Float32, X, Tiles4>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(float16, Float16)
#endif

void vitrail_add_upsampled(const AddUpsampledArgs& a) { add_upsampled(a); }
}
