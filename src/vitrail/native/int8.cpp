// What native/gemm.py calls with weights in int8: layers whose products are of bytes, between rows stored as in
// gemm.cpp.

#include "int8.h"

extern "C" {
int vitrail_has_bytes() {
#if defined(MULTIPLY_BYTES)
    return 1;
#else
    return 0;
#endif
}

#define LINEAR(name, N, From, To)                                                                                      \
    void vitrail_linear_##name(const void* x, long rows, int depth, WEIGHTS(w), int outputs, void* y, const void* add, \
                               int epilogue, float eps, int threads) {                                                 \
        linear<From, To>(epilogue, HELD(N, w, depth, outputs), (const From::Item*)x, rows, eps, (const To::Item*)add,  \
                         (To::Item*)y, threads);                                                                       \
    }
#define MLP(name, N, X)                                                                                                \
    void vitrail_mlp_##name(const void* x, long rows, int depth, WEIGHTS(first), int hidden, WEIGHTS(second),          \
                            int outputs, void* y, const void* add, float eps, int threads) {                           \
        mlp(HELD(N, first, depth, hidden), HELD(N, second, hidden, outputs), (const X::Item*)x, rows, eps,             \
            (const X::Item*)add, (X::Item*)y, threads);                                                                \
    }

LINEAR(float32, Float32, Float32, Float32)
MLP(float32, Float32, Float32)
#if defined(__AVX512BF16__)
LINEAR(bfloat16, BFloat16, BFloat16, BFloat16)
LINEAR(float16, BFloat16, Float16, Float16)
LINEAR(float16_bfloat16, BFloat16, Float16, BFloat16)
LINEAR(bfloat16_float16, BFloat16, BFloat16, Float16)
MLP(bfloat16, BFloat16, Float16)
#endif
}
