// What native/products.py calls with weights in int8: layers whose products are of bytes, between rows stored as in
// products.cpp.

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
                               int finish, float eps, int threads) {                                                   \
        linear<From, To>(finish, HELD(N, w, depth, outputs), (const From::Item*)x, rows, eps, (const To::Item*)add,    \
                         (To::Item*)y, threads);                                                                       \
    }
#define MLP(name, N, X)                                                                                                \
    void vitrail_mlp_##name(const void* x, long rows, int depth, WEIGHTS(first), int hidden, WEIGHTS(second),          \
                            int outputs, void* y, const void* add, float eps, int threads) {                           \
        mlp(HELD(N, first, depth, hidden), HELD(N, second, hidden, outputs), (const X::Item*)x, rows, eps,             \
            (const X::Item*)add, (X::Item*)y, threads);                                                                \
    }

LINEAR(float32, Single, Single, Single)
MLP(float32, Single, Single)
#if defined(__AVX512BF16__)
LINEAR(bfloat16, Brain, Brain, Brain)
LINEAR(float16, Brain, Half, Half)
LINEAR(float16_bfloat16, Brain, Half, Brain)
LINEAR(bfloat16_float16, Brain, Brain, Half)
MLP(bfloat16, Brain, Half)
#endif
}
