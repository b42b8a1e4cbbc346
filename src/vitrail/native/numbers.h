// How numbers are stored, and what is done with them. `Word` is what one step of a product takes from a row, STEP numbers
// of it. Everything is added up in fp32. `Residual` is how what is handed from block to block is stored: each branch adds
// to it and rounds it anew, so where products are of bfloat16 it has three digits more, in as many bytes.

#pragma once

#include "amx.h"
#include "functions.h"

struct Single {
    typedef Single Residual;
    static constexpr bool AMX = false;  // whether the matrix unit multiplies them
    typedef float Item;
    typedef float Word;
    static constexpr int STEP = 1;
    static inline Lanes read(const Item* at) { return load(at); }
    static inline void write(Item* at, Lanes x) { store(at, x); }
    static inline void interleave(const Item* const* rows, int at, Word* to) { store(to, load(rows[0] + at)); }
    static inline Word word(const Item* const* rows, int at) { return rows[0][at]; }
    static inline Lanes exponential(Lanes x) { return ::exponential(x); }
    static inline Lanes gelu(Lanes x) { return ::gelu(x); }
    static inline float one(Item x) { return x; }
    static inline Item round(float x) { return x; }
    static inline Lanes add_product(Lanes sum, Word row, const Word* column) { return sum + row * load(column); }
};

#if defined(__AVX512BF16__)
// fp16: of eleven digits, and no larger than 65504. What is larger is stored as that, for one infinity would be all that
// a norm sees.
struct Half {
    enum Item : uint16_t {};
    static inline Lanes read(const Item* at) {
        return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at));
    }
    static inline __m256i narrow(Lanes x) {
        x = largest(every(-65504.0f), least(every(65504.0f), x));  // of a number and none, the second is taken: NaN stays
        return _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static inline void write(Item* at, Lanes x) { _mm256_storeu_si256((__m256i*)at, narrow(x)); }
    static inline float one(Item x) { return ((Lanes)_mm512_cvtph_ps(_mm256_set1_epi16((short)x)))[0]; }
    static inline Item round(float x) { return (Item)_mm256_extract_epi16(narrow(every(x)), 0); }
};

struct Brain {
    typedef Half Residual;
#if defined(HAS_AMX) && defined(__AMX_BF16__)
    static constexpr bool AMX = true;
    template <int SUMS, int ROWS, int WORDS>
    static IN_REGISTERS void add_squares() {
        amx::add_brain<SUMS, ROWS, WORDS>();
    }
#else
    static constexpr bool AMX = false;
#endif
    typedef uint16_t Item;
    typedef uint32_t Word;
    static constexpr int STEP = 2;
    static inline __m512i spread(const Item* at) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
    }
    static inline Lanes read(const Item* at) {
        return (Lanes)_mm512_slli_epi32(spread(at), 16);
    }
    static inline void write(Item* at, Lanes x) {
        _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
    }
    // Words of LANES columns: step s of a column is row s.
    static inline void interleave(const Item* const* rows, int at, Word* to) {
        _mm512_storeu_si512(to, _mm512_or_si512(spread(rows[0] + at), _mm512_slli_epi32(spread(rows[1] + at), 16)));
    }
    static inline Word word(const Item* const* rows, int at) { return rows[0][at] | (Word)rows[1][at] << 16; }
    static inline Lanes exponential(Lanes x) { return quick_exponential(x); }
    static inline Lanes gelu(Lanes x) { return quick_gelu(x); }
    static inline float one(Item x) {
        uint32_t bits = (uint32_t)x << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    static inline Item round(float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        if ((bits & 0x7fffffff) > 0x7f800000) return (Item)(bits >> 16 | 0x40);  // no number, and adding would make one
        return (Item)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);               // to the nearest, ties to even
    }
    static inline Lanes add_product(Lanes sum, Word row, const Word* column) {
        return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)row),
                                       (__m512bh)_mm512_loadu_si512(column));
    }
};
#endif
