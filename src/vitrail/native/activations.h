// exp and GELU, each to fp32 accuracy and to bf16 accuracy at half the cost.

#pragma once

#include "simd.h"

constexpr float MAGIC = 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer, in the low bits

// e^x within 2 ulp; x is clamped to [-87, 88].
static inline Vec exponential(Vec x) {
    x = min(broadcast(88.0f), max(broadcast(-87.0f), x));  // NaN propagates
    Vec shifted = x * 1.44269504089f + MAGIC;
    Vec n = shifted - MAGIC;
    Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (Vec)((VecI32)p + ((VecI32)shifted << 23));
}

// e^x with relative error 8e-5: 2^n times a cubic in the remainder, minimax for the relative error on [-1/2, 1/2].
static inline Vec fast_exponential(Vec x) {
    x *= 1.44269504089f;
#if defined(__AVX512F__)
    const Vec n = (Vec)_mm512_roundscale_ps((__m512)x, 0);
#else
    x = max(broadcast(-126.0f), x);
    const Vec shifted = x + MAGIC, n = shifted - MAGIC;
#endif
    const Vec f = x - n;
    Vec p = broadcast(5.517177e-2f);
    p = p * f + 2.4261137e-1f;
    p = p * f + 6.9326097e-1f;
    p = p * f + 9.9992803e-1f;
#if defined(__AVX512F__)
    return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return (Vec)((VecI32)p + ((VecI32)shifted << 23));
#endif
}

// gelu(x) = x Phi(x), Phi from the erf of Abramowitz and Stegun 7.1.26 (absolute error at most 1.5e-7).
static inline Vec gelu(Vec x) {
    Vec z = x * 0.70710678118f;
    Vec size = z < 0.0f ? -z : z;
    Vec t = 1.0f / (1.0f + 0.3275911f * size);
    Vec p = broadcast(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    Vec tail = 0.5f * p * t * exponential(-size * size);  // (1 - erf |z|) / 2
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

// gelu(x) with absolute error 1e-4: Phi(x) = 1/2 + x P(x^2) for |x| <= 4.25, constrained to 0 and 1 at the ends; P of
// degree 7, minimax for x Phi(x).
static inline Vec fast_gelu(Vec x) {
    Vec z = min(max(x, broadcast(-4.25f)), broadcast(4.25f));
    Vec u = z * z;
    Vec p = broadcast(-8.460456260e-10f);
    p = p * u + 7.570865484e-8f;
    p = p * u - 2.938811559e-6f;
    p = p * u + 6.552722387e-5f;
    p = p * u - 9.404486296e-4f;
    p = p * u + 9.257827631e-3f;
    p = p * u - 6.545350891e-2f;
    p = p * u + 3.984200497e-1f;
    return x * (z * p + 0.5f);
}
