// Linear layers of a decoder with weights of eight or four bits, as integer dot products (AVX-512 VNNI).
//
// A row x is rounded to 16 bits, x = s q, and q + 2^15 is split into bytes, 256 high + low. So
//
//     w . q = 256 (w . high - 128 sum(w)) + w . low,
//
// two dot products of bytes: activations lose nothing that weights of eight bits keep. A k-step has four inputs:
//
//     panel p:  [k = 0..3: PANEL outputs x 4 weights] [k = 4..7: ...] ...
//
// In a k-step of codes, byte j of pair i of vectors has byte j of vector 2 i in its low half, and of vector 2 i + 1 in
// its high half; 16 values of one byte are one operand of a byte permutation.

#pragma once

#include "decode_linear.h"

constexpr int K4 = 4;

// Bytes of a quantized row: all high ones, then all low ones.
static inline long quantized_bytes(long depth) { return 2 * round_up((int)depth, 64); }

// Round a row of `depth` floats; return its scale. Bytes behind the depth are those of 0.
static inline float quantize_row(const float* x, long depth, uint8_t* to) {
    Vec high = Vec{};
    long i = 0;
    for (; i + LANES <= depth; i += LANES) {
        const Vec in = load(x + i);
        high = max_nan(high, in < 0.0f ? -in : in);
    }
    float most = 0;
    for (int lane = 0; lane < LANES; lane++) most = high[lane] <= most ? most : high[lane];
    for (; i < depth; i++) most = std::fabs(x[i]) <= most ? most : std::fabs(x[i]);
    const long half = quantized_bytes(depth) / 2;
    const float scale = most / 32767.0f, inverse = most > 0 ? 32767.0f / most : 0.0f;
    uint8_t *upper = to, *lower = to + half;
    i = 0;
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    for (; i + LANES <= depth; i += LANES) {
        const __m512i q =
            _mm512_add_epi32(_mm512_cvtps_epi32((__m512)(load(x + i) * inverse)), _mm512_set1_epi32(32768));
        _mm_storeu_si128((__m128i*)(lower + i), _mm512_cvtepi32_epi8(q));
        _mm_storeu_si128((__m128i*)(upper + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 8)));
    }
#endif
    for (; i < depth; i++) {
        const int q = (int)std::lrint(x[i] * inverse) + 32768;
        lower[i] = (uint8_t)q;
        upper[i] = (uint8_t)(q >> 8);
    }
    std::fill(lower + depth, lower + half, 0);
    std::fill(upper + depth, upper + half, 128);
    return scale;
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
constexpr bool INTEGER_DOTS = true;

struct ByteWeights {
    static constexpr int BYTES = PANEL * K4;
    ByteWeights(const Matrix&, long) {}
    IN_REGISTERS void read(const uint8_t* at, __m512i* w) const {
        for (int v = 0; v < WIDE; v++) w[v] = _mm512_loadu_si512(at + v * 64);
    }
};

struct CodeWeights {
    static constexpr int BYTES = PANEL * K4 / 2;
    __m512i values;
    CodeWeights(const Matrix& m, long panel)
        : values(_mm512_broadcast_i32x4(
              _mm_loadu_si128((const __m128i*)((const int8_t*)m.tables + panel * PANEL / TABLE_ROWS * 16)))) {}
    IN_REGISTERS void read(const uint8_t* at, __m512i* w) const {
        const __m512i low = _mm512_set1_epi8(15);
        for (int i = 0; i < WIDE / 2; i++) {
            const __m512i bytes = _mm512_loadu_si512(at + i * 64);
            w[2 * i] = _mm512_shuffle_epi8(values, _mm512_and_si512(bytes, low));
            w[2 * i + 1] = _mm512_shuffle_epi8(values, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low));
        }
    }
};

constexpr int INT_ROWS = 3;  // 3 rows x 4 vectors x 2 bytes: 24 accumulators

// Add `steps` k-steps of R quantized rows and a panel to `totals`.
template <class W, int R>
static inline void add_dots(const W& weights, const uint8_t* at, const uint8_t* x, long stride, long half, int steps,
                            const float* scales, const int32_t* sums, const float* row_scales, float* totals) {
    constexpr int AHEAD = 4096;
    __m512i upper[R][WIDE], lower[R][WIDE];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < WIDE; v++) upper[r][v] = lower[r][v] = _mm512_setzero_si512();
    for (int k = 0; k < steps; k++, at += W::BYTES) {
        __m512i w[WIDE];
        weights.read(at, w);
        for (int line = 0; line < W::BYTES; line += 64) __builtin_prefetch(at + AHEAD + line);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            int32_t words[2];
            std::memcpy(words, x + r * stride + K4 * k, 4);
            std::memcpy(words + 1, x + r * stride + half + K4 * k, 4);
            const __m512i first = _mm512_set1_epi32(words[0]), second = _mm512_set1_epi32(words[1]);
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                upper[r][v] = _mm512_dpbusd_epi32(upper[r][v], first, w[v]);
                lower[r][v] = _mm512_dpbusd_epi32(lower[r][v], second, w[v]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < WIDE; v++) {
            const __m512i offset = _mm512_slli_epi32(_mm512_loadu_si512(sums + v * LANES), 7);
            const Vec dots = 256.0f * (Vec)_mm512_cvtepi32_ps(_mm512_sub_epi32(upper[r][v], offset)) +
                             (Vec)_mm512_cvtepi32_ps(lower[r][v]);
            float* to = totals + r * PANEL + v * LANES;
            store(to, load(to) + dots * load(scales + v * LANES) * row_scales[r]);
        }
}

// totals[rows][PANEL] = x W^T of one panel, from quantized rows.
template <class W>
static void integer_product(const Matrix& m, long panel, const uint8_t* x, const float* row_scales, int rows,
                            float* totals) {
    const W weights(m, panel);
    const long stride = quantized_bytes(m.depth), steps = (m.depth + K4 - 1) / K4;
    const uint8_t* packed = m.packed + panel * steps * W::BYTES;
    const long block = std::max<long>(1, (m.columns + K4 - 1) / K4);
    std::fill(totals, totals + (size_t)rows * PANEL, 0.0f);
    for (int row = 0; row < rows; row += INT_ROWS)
        for (long start = 0, group = panel * m.groups(); start < steps; start += block, group++) {
            const uint8_t *at = packed + start * W::BYTES, *from = x + row * stride + start * K4;
            const int count = (int)std::min(block, steps - start);
            const float *scales = m.scales + group * PANEL, *by = row_scales + row;
            const int32_t* sums = m.sums + group * PANEL;
            float* to = totals + (size_t)row * PANEL;
            switch (std::min(INT_ROWS, rows - row)) {
                case 1: add_dots<W, 1>(weights, at, from, stride, stride / 2, count, scales, sums, by, to); break;
                case 2: add_dots<W, 2>(weights, at, from, stride, stride / 2, count, scales, sums, by, to); break;
                default: add_dots<W, 3>(weights, at, from, stride, stride / 2, count, scales, sums, by, to);
            }
        }
}

static void integer_product(const Matrix& m, long panel, const uint8_t* x, const float* row_scales, int rows,
                            float* totals) {
    if (m.format == INT8) return integer_product<ByteWeights>(m, panel, x, row_scales, rows, totals);
    integer_product<CodeWeights>(m, panel, x, row_scales, rows, totals);
}
#else
constexpr bool INTEGER_DOTS = false;
static void integer_product(const Matrix&, long, const uint8_t*, const float*, int, float*) {}
#endif

static inline bool integer_dots(const Matrix& m) { return INTEGER_DOTS && (m.format == INT8 || m.format == CODES); }
