// Linear layers of a decoder: packed weights of any format, decoded in registers on their way into a GEMM.
//
// One row reads each weight once, so its bytes are the limit. The layout is the panel of gemm.h: the weights of PANEL
// outputs, k-step by k-step,
//
//     panel p:  [k = 0: PANEL weights] [k = 1: PANEL weights] ...
//
// and a k-step has 4, 2, 1 or 1/2 bytes a weight. In a k-step of codes, byte j of pair i of vectors has output
// 2 i LANES + j in its low half, and output (2 i + 1) LANES + j in its high half.

#pragma once

#include <atomic>

#include "norms.h"

enum Format : int64_t { FP32 = 0, BF16 = 1, INT8 = 2, CODES = 3 };

// Depth of a block: 6 rows of it stay in L1 and its panel in L2, if there are many rows.
constexpr int DEPTH_BLOCK = 512;
constexpr int TABLE_ROWS = 64;  // outputs that share a table of 16 values

struct Matrix {
    Format format;
    long outputs, depth;
    long columns;  // inputs that share a scale
    const uint8_t* packed;
    const float* scales;  // [panel][group][PANEL], if the format has scales
    const float* tables;  // [outputs / 64][16], of codes
    const float* bias;    // padded to whole panels
    const int32_t* sums;  // [panel][group][PANEL]: sums of weights, of integer dot products (decode_int8.h)

    long panels() const { return (outputs + PANEL - 1) / PANEL; }
    long groups() const { return (depth + columns - 1) / columns; }
};

struct ReadFp32 {
    static constexpr int BYTES = PANEL * 4;
    static constexpr bool SCALED = false;
    ReadFp32(const Matrix&, long) {}
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int v = 0; v < WIDE; v++) w[v] = load((const float*)at + v * LANES);
    }
};

struct ReadBf16 {
    static constexpr int BYTES = PANEL * 2;
    static constexpr bool SCALED = false;
    ReadBf16(const Matrix&, long) {}
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int v = 0; v < WIDE; v++) {
#if defined(__AVX512F__)
            const __m256i halves = _mm256_loadu_si256((const __m256i*)(at + 2 * v * LANES));
            w[v] = (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#elif defined(__AVX2__)
            const __m128i halves = _mm_loadu_si128((const __m128i*)(at + 2 * v * LANES));
            w[v] = (Vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
            VecU32 wide;
            for (int i = 0; i < LANES; i++) wide[i] = (uint32_t)((const uint16_t*)at)[v * LANES + i] << 16;
            w[v] = (Vec)wide;
#endif
        }
    }
};

struct ReadInt8 {
    static constexpr int BYTES = PANEL;
    static constexpr bool SCALED = true;
    ReadInt8(const Matrix&, long) {}
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int v = 0; v < WIDE; v++) {
#if defined(__AVX512F__)
            const __m128i bytes = _mm_loadu_si128((const __m128i*)(at + v * LANES));
            w[v] = (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
            const __m128i bytes = _mm_loadl_epi64((const __m128i*)(at + v * LANES));
            w[v] = (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
            for (int i = 0; i < LANES; i++) w[v][i] = (int8_t)at[v * LANES + i];
#endif
        }
    }
};

struct ReadCodes {
    static constexpr int BYTES = PANEL / 2;
    static constexpr bool SCALED = true;
    static const float* table_of(const Matrix& m, long panel) { return m.tables + panel * PANEL / TABLE_ROWS * 16; }
#if defined(__AVX512F__)
    __m512 values;
    ReadCodes(const Matrix& m, long panel) : values(_mm512_loadu_ps(table_of(m, panel))) {}
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int i = 0; i < WIDE / 2; i++) {
            const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(at + i * LANES)));
            w[2 * i] = (Vec)_mm512_permutexvar_ps(wide, values);  // reads the four low bits of an index
            w[2 * i + 1] = (Vec)_mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), values);
        }
    }
#elif defined(__AVX2__)
    __m256 first, second;
    ReadCodes(const Matrix& m, long panel)
        : first(_mm256_loadu_ps(table_of(m, panel))), second(_mm256_loadu_ps(table_of(m, panel) + 8)) {}
    IN_REGISTERS Vec pick(__m256i index) const {
        const __m256 a = _mm256_permutevar8x32_ps(first, index), b = _mm256_permutevar8x32_ps(second, index);
        return (Vec)_mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
    }
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int i = 0; i < WIDE / 2; i++) {
            const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(at + i * LANES)));
            w[2 * i] = pick(wide);
            w[2 * i + 1] = pick(_mm256_srli_epi32(wide, 4));
        }
    }
#else
    const float* values;
    ReadCodes(const Matrix& m, long panel) : values(table_of(m, panel)) {}
    IN_REGISTERS void read(const uint8_t* at, Vec* w) const {
        for (int i = 0; i < WIDE / 2; i++)
            for (int j = 0; j < LANES; j++) {
                w[2 * i][j] = values[at[i * LANES + j] & 15];
                w[2 * i + 1][j] = values[at[i * LANES + j] >> 4];
            }
    }
#endif
};

// Add `steps` k-steps of R rows and a panel to `totals`, times the scales of the panel.
template <class W, int R>
static inline void add_block(const W& weights, const uint8_t* at, const float* x, long stride, int steps,
                             const float* scales, float* totals) {
    constexpr int AHEAD = 2048;  // bytes; hardware prefetch stops at the end of a page
    Vec sums[R][WIDE] = {};
#pragma GCC unroll 4
    for (int k = 0; k < steps; k++) {
        Vec w[WIDE];
        weights.read(at, w);
        if (W::BYTES >= 64 || k % (64 / std::min(W::BYTES, 64)) == 0)
            for (int line = 0; line < std::max(W::BYTES, 64); line += 64) __builtin_prefetch(at + AHEAD + line);
        at += W::BYTES;
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const Vec in = broadcast(x[r * stride + k]);
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) sums[r][v] += in * w[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) {
            float* to = totals + r * PANEL + v * LANES;
            const Vec scaled = W::SCALED ? sums[r][v] * load(scales + v * LANES) : sums[r][v];
            store(to, load(to) + scaled);
        }
}

template <class W>
static inline void add_block(int rows, const W& weights, const uint8_t* at, const float* x, long stride, int steps,
                             const float* scales, float* totals) {
    switch (rows) {
        case 1: return add_block<W, 1>(weights, at, x, stride, steps, scales, totals);
        case 2: return add_block<W, 2>(weights, at, x, stride, steps, scales, totals);
        case 3: return add_block<W, 3>(weights, at, x, stride, steps, scales, totals);
        case 4: return add_block<W, 4>(weights, at, x, stride, steps, scales, totals);
        case 5: return add_block<W, 5>(weights, at, x, stride, steps, scales, totals);
        default: return add_block<W, ROWS>(weights, at, x, stride, steps, scales, totals);
    }
}

// totals[rows][PANEL] = x W^T of one panel. Blocks depend on the matrix alone, so a row has the same result in any
// batch.
template <class W>
static void panel_product(const Matrix& m, long panel, const float* x, long stride, int rows, float* totals) {
    const W weights(m, panel);
    const uint8_t* packed = m.packed + panel * m.depth * W::BYTES;
    const long block = std::min<long>(m.columns, DEPTH_BLOCK);
    std::fill(totals, totals + (size_t)rows * PANEL, 0.0f);
    for (long start = 0; start < m.depth; start += block) {
        const int steps = (int)std::min(block, m.depth - start);
        const float* scales = m.scales + (panel * m.groups() + start / m.columns) * PANEL;
        for (int row = 0; row < rows; row += ROWS)
            add_block<W>(std::min(ROWS, rows - row), weights, packed + start * W::BYTES, x + row * stride + start,
                         stride, steps, scales, totals + (size_t)row * PANEL);
    }
}

static void panel_product(const Matrix& m, long panel, const float* x, long stride, int rows, float* totals) {
    switch (m.format) {
        case FP32: return panel_product<ReadFp32>(m, panel, x, stride, rows, totals);
        case BF16: return panel_product<ReadBf16>(m, panel, x, stride, rows, totals);
        case INT8: return panel_product<ReadInt8>(m, panel, x, stride, rows, totals);
        case CODES: return panel_product<ReadCodes>(m, panel, x, stride, rows, totals);
    }
}
