// Vec: SIMD vector of fp32, as wide as the registers of the target.
//
// Based on compiler vector extensions, so the same source compiles for AVX-512, AVX2, NEON or scalar code. Intrinsics
// only for operations without an equivalent.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int WIDE = 4;  // vectors of a panel: 6 x 4 accumulators, 4 weights and a broadcast fit in 32 registers
#elif defined(__AVX2__)
constexpr int LANES = 8;
constexpr int WIDE = 2;  // 6 x 2 accumulators, 2 weights and a broadcast fit in 16 registers
#else
constexpr int LANES = 4;
constexpr int WIDE = 4;
#endif
constexpr int ROWS = 6;
constexpr int PANEL = LANES * WIDE;

// Force inlining, so that the accumulators of a microkernel stay in registers.
#define IN_REGISTERS inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t VecI32 __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t VecU32 __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vec broadcast(float x) { return x - Vec{}; }
static inline Vec load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
static inline void store(float* at, Vec x) { *reinterpret_cast<Vec*>(at) = x; }
// Intrinsics, since the compiler emits two instructions for a vector select.
#if defined(__AVX512F__)
static inline Vec max(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
static inline Vec min(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
static inline Vec max(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline Vec min(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
static inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
static inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif

// Maximum that propagates NaN from either operand; `max` and `min` return b if one is NaN.
static inline Vec max_nan(Vec a, Vec b) {
    const Vec more = max(b, a);
    return b == b ? more : b;
}

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

#if defined(__AVX512F__)
static inline float add_up(Vec x) { return _mm512_reduce_add_ps((__m512)x); }
static inline float top(Vec x) { return _mm512_reduce_max_ps((__m512)x); }
#else
static inline float add_up(Vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

static inline float top(Vec x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = std::max(most, x[i]);
    return most;
}
#endif

// Thread-local growing workspace, aligned to a cache line, so that no vector crosses two lines.
template <class T>
static T* scratch(int slot, size_t items) {
    constexpr size_t line = 64, spare = 64 + line / sizeof(T);
    static thread_local std::vector<T> kept[9];
    if (kept[slot].size() < items + spare) kept[slot].resize(items + spare);
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(kept[slot].data()) + line - 1) / line * line);
}

// Zeros to read in place of a missing row. Their address is valid for the lifetime of the calling thread, even after
// further calls, and may be shared with other threads.
template <class T>
static const T* nothing(size_t items) {
    static thread_local std::vector<std::vector<T>> kept;
    if (kept.empty() || kept.back().size() < items + 64)
        kept.emplace_back(std::max(items + 64, kept.empty() ? 0 : 2 * kept.back().size()));
    return kept.back().data();
}
