// Lanes: vectors of floats as wide as the machine's registers, and two ways to store numbers.
//
// The compiler's own vector types are used, so the same text compiles for AVX-512, AVX2, NEON or none of them. Only what
// they cannot say is written with intrinsics: the product of pairs of bfloat16.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16;
constexpr int WIDE = 4;  // vectors of a panel: 6 x 4 sums, 4 weights and a broadcast fit in 32 registers
#elif defined(__AVX2__)
constexpr int LANES = 8;
constexpr int WIDE = 2;  // 6 x 2 sums, 2 weights and a broadcast fit in 16 registers
#else
constexpr int LANES = 4;
constexpr int WIDE = 4;
#endif
constexpr int ROWS = 6;
constexpr int PANEL = LANES * WIDE;

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Lanes every(float x) { return x - Lanes{}; }
static inline Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
static inline void store(float* at, Lanes x) { *reinterpret_cast<Lanes*>(at) = x; }
static inline Lanes largest(Lanes a, Lanes b) { return a > b ? a : b; }
static inline Lanes least(Lanes a, Lanes b) { return a < b ? a : b; }

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

static inline float add_up(Lanes x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

static inline float top(Lanes x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = std::max(most, x[i]);
    return most;
}

// e^x to 2 units in the last place, for x from -87 up to where float ends; below it gives e^-87.
static inline Lanes exponential(Lanes x) {
    x = largest(x, every(-87.0f));
    const Lanes magic = every(12582912.0f);  // adding 1.5 * 2^23 rounds to a whole number, kept in the low bits
    Lanes shifted = x * 1.44269504089f + magic;
    Lanes n = shifted - magic;
    Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = every(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (Lanes)((Whole)p + ((Whole)shifted << 23));
}

// How numbers lie in memory: `Word` is what one step of a product takes from a row, STEP numbers of it.

struct Single {
    typedef float Item;
    typedef float Word;
    static constexpr int STEP = 1;
    static inline Lanes read(const Item* at) { return load(at); }
    static inline void write(Item* at, Lanes x) { store(at, x); }
    static inline float one(Item x) { return x; }
    static inline Item round(float x) { return x; }
    static inline Lanes add_product(Lanes sum, Word row, const Word* column) { return sum + row * load(column); }
};

#if defined(__AVX512BF16__)
struct Brain {
    typedef uint16_t Item;
    typedef uint32_t Word;
    static constexpr int STEP = 2;
    static inline Lanes read(const Item* at) {
        return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16);
    }
    static inline void write(Item* at, Lanes x) {
        _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
    }
    static inline float one(Item x) {
        uint32_t bits = (uint32_t)x << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    static inline Item round(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        return (Item)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to the nearest, ties to even
    }
    static inline Lanes add_product(Lanes sum, Word row, const Word* column) {
        return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)row),
                                       (__m512bh)_mm512_loadu_si512(column));
    }
};
#endif

// Memory of one thread that grows and is kept.
template <class T>
static T* scratch(int slot, size_t items) {
    static thread_local std::vector<T> kept[8];
    if (kept[slot].size() < items + 64) kept[slot].resize(items + 64);
    return kept[slot].data();
}
