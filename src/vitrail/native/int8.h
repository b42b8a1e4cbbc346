// Products of bytes: rows are quantised as they are read, weights once; sums are whole numbers and exact.
//
// A row is x = scale * u + least with u from 0 to 255, weights are w = step * q with q from -127 to 127, one step for
// each output. So x W = scale * step * (u q) + least * (the sum of w), and only u q is left to the product.

#pragma once

#include "dense.h"

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
    typedef uint32_t Word;
    static constexpr int STEP = 4;
    // Add four products of an unsigned and a signed byte to each number. The sums are whole numbers that pass through
    // products.h as bits; a compiler told of the change copies every register, so it is not told.
    static IN_REGISTERS Lanes add_product(Lanes sum, Word row, const Word* column) {
#if defined(MULTIPLY_BYTES)
        const Bits rows = row - Bits{};
        asm(MULTIPLY_BYTES : "+v"(sum) : "v"(rows), "v"(*reinterpret_cast<const Bits*>(column)));
        return sum;
#else
        uint8_t u[STEP];
        std::memcpy(u, &row, STEP);
        Whole sums = (Whole)sum;
        for (int i = 0; i < LANES; i++) {
            int8_t q[STEP];
            std::memcpy(q, column + i, STEP);
            for (int s = 0; s < STEP; s++) sums[i] += u[s] * q[s];
        }
        return (Lanes)sums;
#endif
    }
};

static inline Lanes numbers(Lanes sum) { return __builtin_convertvector((Whole)sum, Lanes); }

// How a row's bytes are read.
struct Reading {
    float scale, least;
};

static inline void write_bytes(uint8_t* to, Lanes x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)x)));
#else
    const Whole bits = (Whole)(x + MAGIC);  // rounds to a whole number, kept in the low bits
    for (int i = 0; i < LANES; i++) to[i] = (uint8_t)bits[i];
#endif
}

// The least and the largest of numbers, found lane by lane.
struct Range {
    Lanes low = every(INFINITY), high = every(-INFINITY);
    IN_REGISTERS void see(Lanes x) {
        low = least(low, x);
        high = largest(high, x);
    }
};

// Write a row whose range is known as `round_up(depth, STEP)` bytes, and return how to read them.
template <class N>
static inline Reading lay_down(const typename N::Item* from, int depth, Range range, uint8_t* to) {
    const int whole = depth / LANES * LANES;
    const float first = -top(-range.low), step = (top(range.high) - first) / 255, inverse = step > 0 ? 1 / step : 0;
    for (int c = 0; c < whole; c += LANES) write_bytes(to + c, (N::read(from + c) - first) * inverse);
    for (int c = whole; c < depth; c++) to[c] = (uint8_t)std::lrint((N::one(from[c]) - first) * inverse);
    std::fill(to + depth, to + round_up(depth, Bytes::STEP), uint8_t(0));
    return {step, first};
}

// Write a row as bytes and return how to read them.
template <class N>
static inline Reading quantise(const typename N::Item* from, int depth, uint8_t* to) {
    const int whole = depth / LANES * LANES;
    Lanes sums = Lanes{};
    Range range;
    for (int c = 0; c < whole; c += LANES) {
        const Lanes x = N::read(from + c);
        sums += x;
        range.see(x);
    }
    float sum = add_up(sums);
    for (int c = whole; c < depth; c++) {
        sum += N::one(from[c]);
        range.see(every(N::one(from[c])));
    }
    const Reading found = lay_down<N>(from, depth, range, to);
    return {found.scale, found.least + 0 * sum};  // NaN where a number is none: no byte can say so
}

// The same for the row brought to mean 0 and variance 1, each channel times its factor; factors lie in whole vectors.
// The norm's scale only changes how the bytes are read.
template <class N>
static inline Reading quantise_normed(const typename N::Item* from, int depth, const float* factors, float eps,
                                      uint8_t* to) {
    const int whole = depth / LANES * LANES;
    float* row = scratch<float>(7, depth);
    Lanes sums = Lanes{}, squares = Lanes{};
    for (int c = 0; c < whole; c += LANES) sums += N::read(from + c);
    float mean = add_up(sums), square = 0;
    for (int c = whole; c < depth; c++) mean += N::one(from[c]);
    mean /= depth;
    Range range;
    for (int c = 0; c < whole; c += LANES) {
        const Lanes x = N::read(from + c) - mean, factored = x * load(factors + c);
        squares += x * x;
        store(row + c, factored);
        range.see(factored);
    }
    for (int c = whole; c < depth; c++) {
        const float x = N::one(from[c]) - mean;
        square += x * x;
        row[c] = x * factors[c];
        range.see(every(row[c]));
    }
    const float scale = 1 / std::sqrt((square + add_up(squares)) / depth + eps);
    const Reading found = lay_down<Single>(row, depth, range, to);
    return {found.scale * scale, found.least * scale + 0 * mean};
}

// Weights in bytes; step, sums, bias and, behind a norm, factors of the inputs lie in whole vectors.
template <class N>
struct ByteWeights {
    typedef N Numbers;
    typedef typename N::Item Item;
    static constexpr size_t ROOM = 192 << 10;
    const Bytes::Word* packed;
    const float *step, *sums, *bias, *factors;
    int inputs, outputs;

    struct Ready {
        const uint8_t* rows;
        const Reading* readings;
    };

    int depth() const { return round_up(inputs, Bytes::STEP); }

    template <class From, class Row>
    Ready ready(Row&& row, int count, float eps) const {
        uint8_t* bytes = scratch<uint8_t>(0, (size_t)count * depth());
        Reading* readings = scratch<Reading>(0, count);
        for (int r = 0; r < count; r++) {
            uint8_t* to = bytes + (size_t)r * depth();
            readings[r] = eps < 0 ? quantise<From>(row(r), inputs, to)
                                  : quantise_normed<From>(row(r), inputs, factors, eps, to);
        }
        return {bytes, readings};
    }

    template <class Finish>
    void multiply(Ready ready, int count, int first, int last, Finish finish) const {
        const float *steps = step, *all = sums, *offsets = bias;
        const Reading* readings = ready.readings;
        product<Bytes>(ready.rows, depth(), count, packed, depth(), outputs, first, last, [=](int r, int c, Lanes sum) {
            const Lanes offset = load(all + c) * readings[r].least + load(offsets + c);
            finish(r, c, numbers(sum) * (load(steps + c) * readings[r].scale) + offset);
        });
    }
};

// As arguments of what Python calls, and put together again.
#define WEIGHTS(w)                                                                                                     \
    const void *w, const float *w##_step, const float *w##_sums, const float *w##_bias, const float *w##_factors
#define HELD(N, w, inputs, outputs)                                                                                    \
    ByteWeights<N> { (const Bytes::Word*)w, w##_step, w##_sums, w##_bias, w##_factors, inputs, outputs }
