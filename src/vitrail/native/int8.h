// Int8 GEMM: rows are quantised dynamically (asymmetric, per row), weights once (symmetric, per output); integer
// accumulation is exact.
//
// x = scale * u + minimum, u from 0 to 255;  w = step * q, q from -127 to 127
// x W = scale * step * (u q) + minimum * sum(w),  with u q from the GEMM

#pragma once

#include "gemm_layer.h"

#if defined(__AVX512VNNI__)
#define MULTIPLY_BYTES "vpdpbusd %2, %1, %0"
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define MULTIPLY_BYTES "%{vex%} vpdpbusd %2, %1, %0"
#endif

struct Bytes {
#if defined(HAS_AMX) && defined(__AMX_INT8__)
    static constexpr bool AMX = true;
    template <int SUMS, int ROWS, int WORDS>
    static IN_REGISTERS void add_squares() {
        amx::add_bytes<SUMS, ROWS, WORDS>();
    }
#else
    static constexpr bool AMX = false;
#endif
    typedef uint8_t Item;
    typedef uint32_t KPack;
    static constexpr int K_STEP = 4;
    // Accumulate 4 products of an unsigned and a signed byte per lane. The int32 sums pass through gemm.h as the bits
    // of floats; with an explicit conversion the compiler copies every register.
    static IN_REGISTERS Vec add_product(Vec sum, KPack row, const KPack* column) {
#if defined(MULTIPLY_BYTES)
        const VecU32 rows = row - VecU32{};
        asm(MULTIPLY_BYTES : "+v"(sum) : "v"(rows), "v"(*reinterpret_cast<const VecU32*>(column)));
        return sum;
#else
        uint8_t u[K_STEP];
        std::memcpy(u, &row, K_STEP);
        VecI32 sums = (VecI32)sum;
        for (int i = 0; i < LANES; i++) {
            int8_t q[K_STEP];
            std::memcpy(q, column + i, K_STEP);
            for (int s = 0; s < K_STEP; s++) sums[i] += u[s] * q[s];
        }
        return (Vec)sums;
#endif
    }
};

static inline Vec numbers(Vec sum) { return __builtin_convertvector((VecI32)sum, Vec); }

// Quantisation parameters of a row.
struct QuantParams {
    float scale, minimum;
};

static inline void write_bytes(uint8_t* to, Vec x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)x)));
#else
    const VecI32 bits = (VecI32)(x + MAGIC);  // rounds to an integer, in the low bits
    for (int i = 0; i < LANES; i++) to[i] = (uint8_t)bits[i];
#endif
}

// Minimum and maximum per lane.
struct Range {
    Vec low = broadcast(INFINITY), high = broadcast(-INFINITY);
    IN_REGISTERS void see(Vec x) {
        low = min(low, x);
        high = max(high, x);
    }
};

// Quantise a row of known range to `round_up(depth, K_STEP)` bytes, and return its parameters.
template <class N>
static inline QuantParams lay_down(const typename N::Item* from, int depth, Range range, uint8_t* to) {
    const int whole = depth / LANES * LANES;
    const float first = -top(-range.low), step = (top(range.high) - first) / 255, inverse = step > 0 ? 1 / step : 0;
    for (int c = 0; c < whole; c += LANES) write_bytes(to + c, (N::read(from + c) - first) * inverse);
    for (int c = whole; c < depth; c++) to[c] = (uint8_t)std::lrint((N::one(from[c]) - first) * inverse);
    std::fill(to + depth, to + round_up(depth, Bytes::K_STEP), uint8_t(0));
    return {step, first};
}

// Quantise a row and return its parameters.
template <class N>
static inline QuantParams quantise(const typename N::Item* from, int depth, uint8_t* to) {
    const int whole = depth / LANES * LANES;
    Vec sums = Vec{};
    Range range;
    for (int c = 0; c < whole; c += LANES) {
        const Vec x = N::read(from + c);
        sums += x;
        range.see(x);
    }
    float sum = add_up(sums);
    for (int c = whole; c < depth; c++) {
        sum += N::one(from[c]);
        range.see(broadcast(N::one(from[c])));
    }
    const QuantParams found = lay_down<N>(from, depth, range, to);
    return {found.scale, found.minimum + 0 * sum};  // propagates NaN, which a byte cannot represent
}

// The same for the normalised row, each channel times its factor; factors are padded to whole vectors. The scale of the
// norm only affects the quantisation parameters.
template <class N>
static inline QuantParams quantise_normed(const typename N::Item* from, int depth, const float* factors, float eps,
                                          uint8_t* to) {
    const int whole = depth / LANES * LANES;
    float* row = scratch<float>(7, depth);
    Vec sums = Vec{}, squares = Vec{};
    for (int c = 0; c < whole; c += LANES) sums += N::read(from + c);
    float mean = add_up(sums), square = 0;
    for (int c = whole; c < depth; c++) mean += N::one(from[c]);
    mean /= depth;
    Range range;
    for (int c = 0; c < whole; c += LANES) {
        const Vec x = N::read(from + c) - mean, factored = x * load(factors + c);
        squares += x * x;
        store(row + c, factored);
        range.see(factored);
    }
    for (int c = whole; c < depth; c++) {
        const float x = N::one(from[c]) - mean;
        square += x * x;
        row[c] = x * factors[c];
        range.see(broadcast(row[c]));
    }
    const float scale = 1 / std::sqrt((square + add_up(squares)) / depth + eps);
    const QuantParams found = lay_down<Float32>(row, depth, range, to);
    return {found.scale * scale, found.minimum * scale + 0 * mean};
}

// Int8 weights; step, sums, bias and, after a norm, input factors are padded to whole vectors.
template <class N>
struct ByteWeights {
    typedef N Numbers;
    typedef typename N::Item Item;
    static constexpr bool STREAMED = false;
    static constexpr size_t ROOM = 192 << 10;
    const Bytes::KPack* packed;
    const float *step, *sums, *bias, *factors;
    int inputs, outputs;

    static ByteWeights of(const WeightsArgs& a) {
        return {(const Bytes::KPack*)a.panels, a.step, a.sums, a.bias, a.factors, a.inputs, a.outputs};
    }

    struct Ready {
        const uint8_t* rows;
        const QuantParams* params;
    };

    int depth() const { return round_up(inputs, Bytes::K_STEP); }

    template <class From>
    Ready ready(const typename From::Item* rows, int count, float eps) const {
        return gathered<From>([=](int r) { return rows + (size_t)r * inputs; }, count, eps);
    }

    template <class From, class Row>
    Ready gathered(Row&& row, int count, float eps) const {
        uint8_t* bytes = scratch<uint8_t>(0, (size_t)count * depth());
        QuantParams* params = scratch<QuantParams>(0, count);
        for (int r = 0; r < count; r++) {
            uint8_t* to = bytes + (size_t)r * depth();
            params[r] =
                eps < 0 ? quantise<From>(row(r), inputs, to) : quantise_normed<From>(row(r), inputs, factors, eps, to);
        }
        return {bytes, params};
    }

    template <class Epilogue>
    void multiply(Ready ready, int count, int first, int last, Epilogue epilogue) const {
        const float *steps = step, *all = sums, *offsets = bias;
        const QuantParams* params = ready.params;
        gemm<Bytes>(ready.rows, depth(), count, packed, depth(), outputs, first, last, [=](int r, int c, Vec sum) {
            const Vec offset = load(all + c) * params[r].minimum + load(offsets + c);
            epilogue(r, c, numbers(sum) * (load(steps + c) * params[r].scale) + offset);
        });
    }
};
