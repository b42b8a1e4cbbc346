// Exports for native/attention.py with int8 weights: attention branch with int8 linear layers. Queries, keys, values,
// scores and probabilities are fp32 or bf16.

#include "attention_branch.h"
#include "int8.h"

extern "C" {
SIZE_OF(BranchArgs)

#define FOR(name, N) \
    void vitrail_branch_##name(const BranchArgs& a) { branch<ByteWeights<N>>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
