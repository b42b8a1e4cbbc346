// Compute dtypes and their operations. A `KPack` is the K_STEP values of a row in one k-step. Accumulators are fp32.
// `Residual` is the dtype of the residual stream: each branch adds to it and rounds it, so for bf16 it is fp16, with
// three more significant bits in the same space.

#pragma once

#include "amx.h"
#include "activations.h"

struct Float32 {
    typedef Float32 Residual;
    static constexpr bool AMX = false;  // whether AMX supports this dtype
    typedef float Item;
    typedef float KPack;
    static constexpr int K_STEP = 1;
    static inline Vec read(const Item* at) { return load(at); }
    static inline void write(Item* at, Vec x) { store(at, x); }
    static inline void write(Item* at, Vec x, Vec next) { store(at, x), store(at + LANES, next); }
    static inline void interleave(const Item* const* rows, int at, KPack* to) { store(to, load(rows[0] + at)); }
    static inline KPack word(const Item* const* rows, int at) { return rows[0][at]; }
    static inline Vec exponential(Vec x) { return ::exponential(x); }
    static inline Vec gelu(Vec x) { return ::gelu(x); }
    static inline float one(Item x) { return x; }
    static inline Item round(float x) { return x; }
    static inline Vec add_product(Vec sum, KPack row, const KPack* column) { return sum + row * load(column); }
};

#if defined(__AVX512BF16__)
// fp16: 11 significant bits, at most 65504. Larger values saturate: a single infinity would make a whole row of a norm
// NaN.
struct Float16 {
    enum Item : uint16_t {};
    static inline Vec read(const Item* at) { return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at)); }
    static inline __m256i narrow(Vec x) {
        x = max(broadcast(-65504.0f),
                min(broadcast(65504.0f), x));  // with a NaN operand, min returns the second: NaN propagates
        return _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static inline void write(Item* at, Vec x) { _mm256_storeu_si256((__m256i*)at, narrow(x)); }
    static inline void write(Item* at, Vec x, Vec next) {
        _mm512_storeu_si512(at, _mm512_inserti64x4(_mm512_castsi256_si512(narrow(x)), narrow(next), 1));
    }
    static inline float one(Item x) { return ((Vec)_mm512_cvtph_ps(_mm256_set1_epi16((short)x)))[0]; }
    static inline Item round(float x) { return (Item)_mm256_extract_epi16(narrow(broadcast(x)), 0); }
};

struct BFloat16 {
    typedef Float16 Residual;
#if defined(HAS_AMX) && defined(__AMX_BF16__)
    static constexpr bool AMX = true;
    template <int SUMS, int ROWS, int WORDS>
    static IN_REGISTERS void add_squares() {
        amx::add_bfloat16<SUMS, ROWS, WORDS>();
    }
#else
    static constexpr bool AMX = false;
#endif
    typedef uint16_t Item;
    typedef uint32_t KPack;
    static constexpr int K_STEP = 2;
    static inline __m512i spread(const Item* at) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
    }
    static inline Vec read(const Item* at) { return (Vec)_mm512_slli_epi32(spread(at), 16); }
    static inline void write(Item* at, Vec x) {
        _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
    }
    static inline void write(Item* at, Vec x, Vec next) {
        _mm512_storeu_si512(at, (__m512i)_mm512_cvtne2ps_pbh((__m512)next, (__m512)x));
    }
    // KPacks of LANES columns: value s of a column is from row s.
    static inline void interleave(const Item* const* rows, int at, KPack* to) {
        _mm512_storeu_si512(to, _mm512_or_si512(spread(rows[0] + at), _mm512_slli_epi32(spread(rows[1] + at), 16)));
    }
    static inline KPack word(const Item* const* rows, int at) { return rows[0][at] | (KPack)rows[1][at] << 16; }
    static inline Vec exponential(Vec x) { return fast_exponential(x); }
    static inline Vec gelu(Vec x) { return fast_gelu(x); }
    static inline float one(Item x) {
        uint32_t bits = (uint32_t)x << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    static inline Item round(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        if ((bits & 0x7fffffff) > 0x7f800000) return (Item)(bits >> 16 | 0x40);  // NaN: a carry could make it a number
        return (Item)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);               // round to nearest, ties to even
    }
    static inline Vec add_product(Vec sum, KPack row, const KPack* column) {
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)row),
                                     (__m512bh)_mm512_loadu_si512(column));
    }
};
#endif
