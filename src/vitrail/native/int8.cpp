// What native/products.py calls with weights in int8: layers whose products are of bytes, between tokens in single
// precision or bfloat16.

#include "int8.h"

extern "C" {
int vitrail_has_bytes() {
#if defined(MULTIPLY_BYTES)
    return 1;
#else
    return 0;
#endif
}

#define FOR(name, N)                                                                                                   \
    void vitrail_linear_##name(const void* x, long rows, int depth, WEIGHTS(w), int outputs, void* y, const void* add, \
                               int finish, float eps, int threads) {                                                   \
        linear(finish, HELD(N, w, depth, outputs), (const N::Item*)x, rows, eps, (const N::Item*)add, (N::Item*)y,     \
               threads);                                                                                               \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, WEIGHTS(first), int hidden, WEIGHTS(second),          \
                            int outputs, void* y, const void* add, float eps, int threads) {                           \
        mlp(HELD(N, first, depth, hidden), HELD(N, second, hidden, outputs), (const N::Item*)x, rows, eps,             \
            (const N::Item*)add, (N::Item*)y, threads);                                                                \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
