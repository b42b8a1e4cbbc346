// Argument structs: an exported function with many arguments takes one struct whose name ends in `Args`.
//
// Python reads the declarations from the C++ text (native/prototypes.py), so fields have plain types: numbers,
// pointers, arrays of fixed length and other `Args`. SIZE_OF exports the size, which is compared when the library is
// loaded.

#pragma once

#include <cstdint>

#define SIZE_OF(Args) \
    int vitrail_sizeof_##Args() { return (int)sizeof(Args); }

// Packed weights of a linear layer (gemm.h); bias, step and sums are padded to whole vectors.
struct WeightsArgs {
    const void* panels;
    const float* bias;
    int inputs, outputs;
    const float* step;     // scale of each output of int8 weights, else null
    const float* sums;     // step * sum of an output's int8 weights, else null
    const float* factors;  // of each input of int8 weights after a norm, else null
};

// LayerNorm: weight and bias are padded to whole vectors; null without a norm.
struct NormArgs {
    const float* weight;
    const float* bias;
    float eps;
};

// Attention groups (token_groups.h).
struct GroupsArgs {
    const int32_t* slots;  // (groups, count): token index of each slot; -1 is padding
    int groups, count;
    const void* padding;   // (3, heads, width): query, key and value of padding
    const int32_t* kinds;  // (groups): index of each group into `bias`; or null
    const float* bias;     // in the layout of the kernel; or null
};
