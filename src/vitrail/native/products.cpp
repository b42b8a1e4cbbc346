// What native/products.py calls: products with packed weights, for single precision and, where it is there, bfloat16.

#include "dense.h"

extern "C" {
int vitrail_panel() { return PANEL; }
int vitrail_lanes() { return LANES; }
int vitrail_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

#define FOR(name, N)                                                                                                   \
    void vitrail_linear_##name(const void* x, long rows, int depth, const void* packed, const float* bias, int outputs, \
                               void* y, const void* add, int finish, float eps, int threads) {                         \
        const Dense<N> weights = {(const N::Word*)packed, bias, depth, outputs};                                       \
        linear(finish, weights, (const N::Item*)x, rows, eps, (const N::Item*)add, (N::Item*)y, threads);              \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, const void* first, const float* bias1, int hidden,    \
                            const void* second, const float* bias2, int outputs, void* y, const void* add, float eps,  \
                            int threads) {                                                                             \
        const Dense<N> one = {(const N::Word*)first, bias1, depth, hidden};                                            \
        const Dense<N> two = {(const N::Word*)second, bias2, hidden, outputs};                                         \
        mlp(one, two, (const N::Item*)x, rows, eps, (const N::Item*)add, (N::Item*)y, threads);                        \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
