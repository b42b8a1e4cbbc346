// Exports for native/attention.py with int8 weights: attention branch with int8 linear layers. Queries, keys, values,
// scores and probabilities are fp32 or bf16.

#include "attention_branch.h"
#include "int8.h"

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_branch_##name(const void* x, int batch, int tokens, int heads, int width, const int32_t* slots,       \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               WEIGHTS(qkv), WEIGHTS(proj), float eps, void* y, int threads) {                         \
        const int dim = heads * width;                                                                                 \
        typedef N::Residual X;                                                                                         \
        branch<ByteWeights<N>>({(const X::Item*)x, (const N::Item*)padding, (X::Item*)y, heads, width},                \
                               {batch, tokens, slots, groups, count}, {count, heads, kinds, bias},                     \
                               HELD(N, qkv, dim, 3 * dim), HELD(N, proj, dim, dim), eps, threads);                     \
    }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
