// Exports for native/gemm.py with int8 weights: layers with int8 GEMMs, with inputs and outputs in the dtypes of
// gemm.cpp.

#include <cfloat>

#include "int8.h"
#include "packing.h"

// Quantise the weights of one output to int8, -127 to 127: values, step, and step * sum of the values.
static void quantise_output(const float* weights, int inputs, int8_t* to, float* step, float* sum) {
    Vec size = Vec{};
    for (int i = 0; i < inputs; i += LANES) {
        const Vec w = load_partial<Float32>(weights + i, inputs - i);
        size = max_nan(size, max_nan(w, -w));
    }
    float largest = 0;
    for (int i = 0; i < LANES; i++) largest = size[i] == size[i] ? std::max(largest, size[i]) : NAN;
    *step = largest / 127;
    const float divisor = std::max(FLT_MIN, *step);
    VecI32 total = {};
    for (int i = 0; i < inputs; i += LANES) {
        const Vec scaled = load_partial<Float32>(weights + i, inputs - i) / divisor;
        const VecI32 q =
            (VecI32)(min(broadcast(127.0f), max(broadcast(-127.0f), scaled)) + MAGIC) - (VecI32)broadcast(MAGIC);
        total += q;
        for (int l = 0; l < std::min(LANES, inputs - i); l++) to[i + l] = (int8_t)q[l];
    }
    int all = 0;
    for (int l = 0; l < LANES; l++) all += total[l];
    *sum = *step * all;
}

// Arguments of `pack_int8`; step and sums are padded to whole vectors.
struct PackInt8Args {
    const float* weights;  // (outputs, inputs)
    int outputs, inputs;
    uint32_t* panels;
    float* step;
    float* sums;
    int threads;
};

// Quantise weights to int8, with step = max |w| / 127 per output, and pack them in panels. `sums` are step * sum of an
// output's values; an output with NaN has step NaN.
static void pack_int8(const PackInt8Args& a) {
    const int outputs = a.outputs, steps = round_up(a.inputs, Bytes::K_STEP) / Bytes::K_STEP;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (int strip = 0; strip < (outputs + LANES - 1) / LANES; strip++) {
        int8_t* rows = scratch<int8_t>(0, (size_t)LANES * steps * Bytes::K_STEP);
        std::fill_n(rows, (size_t)LANES * steps * Bytes::K_STEP, int8_t(0));
        for (int i = 0; i < LANES; i++) {
            const int j = strip * LANES + i;
            a.step[j] = a.sums[j] = 0;
            if (j < outputs)
                quantise_output(a.weights + (size_t)j * a.inputs, a.inputs, rows + (size_t)i * steps * Bytes::K_STEP,
                                a.step + j, a.sums + j);
        }
        auto row = [=](int j) { return rows + (size_t)(j % LANES) * steps * Bytes::K_STEP; };
        pack_strip(strip, outputs, steps, row, a.panels);
    }
}

extern "C" {
int vitrail_has_bytes() {
#if defined(MULTIPLY_BYTES)
    return 1;
#else
    return 0;
#endif
}
void vitrail_pack_int8(const PackInt8Args& a) { pack_int8(a); }

SIZE_OF(PackInt8Args)
SIZE_OF(LinearArgs)
SIZE_OF(MlpArgs)

#define LINEAR(name, N, From, To) \
    void vitrail_linear_##name(const LinearArgs& a) { linear<From, To, ByteWeights<N>>(a); }
#define MLP(name, N, X) \
    void vitrail_mlp_##name(const MlpArgs& a) { mlp<X, ByteWeights<N>>(a); }

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
