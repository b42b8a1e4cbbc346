// Image resizing, bit-identical to Pillow, restricted to the crop.
//
// Separable filters with fixed-point weights of 22 fractional bits along rows and along columns, rounded to 8 bits in
// between. Integer sums do not depend on their order, so the SIMD code is bit-identical to Pillow.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

constexpr int BYTES = 16;
constexpr int POINT = 22;

typedef uint8_t Narrow __attribute__((vector_size(BYTES), aligned(1), may_alias));
typedef int32_t Sums __attribute__((vector_size(4 * BYTES), aligned(4), may_alias));
typedef uint8_t Pixel __attribute__((vector_size(4), aligned(1), may_alias));
typedef int32_t Four __attribute__((vector_size(16), aligned(4), may_alias));

// Weights are computed in double before rounding; contraction to FMA would change them.
#if defined(__clang__)
#define APART _Pragma("clang fp contract(off)")
#define ALSO_APART
#else
#define APART
#define ALSO_APART __attribute__((optimize("fp-contract=off")))
#endif

struct Filter {
    double reach;
    double (*at)(double);
};

ALSO_APART static double bilinear(double x) {
    APART x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

// Cubic convolution kernel (Keys) with a = -1/2, in the arithmetic of Pillow.
ALSO_APART static double bicubic(double x) {
    APART const double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

// Pixels `begin` to `end` of a line, resized to `size` pixels; only `side` pixels from `first` on are computed. A pixel
// has `stored` bytes; the number of weights of each, one per byte, is a multiple of `multiple`.
struct Line {
    long length, begin, end, size, first, side, stored, multiple, filter;  // one type, so comparable bytewise
};

// Filter taps of each output pixel along one axis. Cached across images, since many have the same size.
struct FilterTaps {
    Line line = {};
    int count = 0;
    std::vector<int32_t> starts, weights;

    ALSO_APART bool fill(const Line& wanted, const Filter& filter) {
        APART if (count && !memcmp(&wanted, &line, sizeof line)) return true;
        const long part = wanted.end - wanted.begin;
        const long stored = wanted.stored;
        const double scale = double(part) / wanted.size, stretch = std::max(scale, 1.0), inverse = 1.0 / stretch;
        const double reach = filter.reach * stretch;
        const long needed = (long(std::ceil(reach)) * 2 + 1) * stored;
        count = 0;
        const long bytes = (needed + wanted.multiple - 1) / wanted.multiple * wanted.multiple, taps = bytes / stored;
        if (taps > wanted.length) return false;
        starts.assign(wanted.side, 0), weights.assign(wanted.side * bytes, 0);
        std::vector<double> shares(taps);
        for (long x = 0; x < wanted.side; x++) {
            const double middle = (wanted.first + x + 0.5) * scale;
            const long low = std::max(long(middle - reach + 0.5), 0l),
                       high = std::min(long(middle + reach + 0.5), part);
            double sum = 0.0;
            for (long i = low; i < high; i++) sum += shares[i - low] = filter.at((i - middle + 0.5) * inverse);
            // No read past the end of the line: the last taps start earlier, with zero weights.
            const long start = std::min(wanted.begin + low, wanted.length - taps);
            int32_t* to = weights.data() + x * bytes + (wanted.begin + low - start) * stored;
            for (long i = 0; i < high - low; i++) {
                const double share = (sum != 0.0 ? shares[i] / sum : shares[i]) * (1 << POINT);
                std::fill_n(to + i * stored, stored, int32_t(share < 0 ? share - 0.5 : share + 0.5));
            }
            starts[x] = start * stored;
        }
        line = wanted, count = bytes;
        return true;
    }
};

// Intrinsics, since compilers convert byte by byte otherwise.
static inline Sums widened(const uint8_t* at) {
#if defined(__AVX512F__)
    return (Sums)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)at));
#elif defined(__AVX2__)
    const __m256i halves[2] = {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)at)),
                               _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(at + 8)))};
    Sums sums;
    memcpy(&sums, halves, sizeof sums);
    return sums;
#else
    return __builtin_convertvector(*reinterpret_cast<const Narrow*>(at), Sums);
#endif
}

static inline Sums read(const int32_t* at) { return *reinterpret_cast<const Sums*>(at); }

template <class Result, class Vector>
static inline void write_rounded(uint8_t* to, Vector sums) {
    const Vector none = {}, most = none + 255;
    sums = (sums + (1 << (POINT - 1))) >> POINT;
    sums = sums < none ? none : sums;
    sums = sums > most ? most : sums;
    const Result bytes = __builtin_convertvector(sums, Result);
    memcpy(to, &bytes, sizeof bytes);  // memcpy, since a template argument drops the alignment attribute
}

// Sum the lanes of each channel, and store one pixel.
template <int CHANNELS>
static inline void write_pixel(uint8_t* to, Sums sums);

template <>
inline void write_pixel<1>(uint8_t* to, Sums sums) {
    int32_t sum = 1 << (POINT - 1);
    for (int i = 0; i < BYTES; i++) sum += sums[i];
    *to = std::min(std::max(sum >> POINT, 0), 255);
}

template <>
inline void write_pixel<4>(uint8_t* to, Sums sums) {
    Four parts[4];
    memcpy(parts, &sums, sizeof parts);
    write_rounded<Pixel>(to, (parts[0] + parts[1]) + (parts[2] + parts[3]));
}

// Horizontal pass: one row of output pixels from a source row that starts at byte `offset`.
template <int CHANNELS>
static void along_row(const uint8_t* row, const FilterTaps& taps, long offset, long side, uint8_t* to) {
    const int32_t* weights = taps.weights.data();
    for (long x = 0; x < side; x++, weights += taps.count, to += CHANNELS) {
        const uint8_t* from = row + taps.starts[x] - offset;
        Sums sums = {};
        for (int tap = 0; tap < taps.count; tap += BYTES) sums += widened(from + tap) * read(weights + tap);
        write_pixel<CHANNELS>(to, sums);
    }
}

// Vertical pass: a row of `bytes` (at least BYTES) from `taps` rows with stride `pitch`.
static void along_columns(const uint8_t* rows, long pitch, long bytes, const int32_t* weights, int taps, uint8_t* to) {
    for (long next = 0; next < bytes; next += BYTES) {
        const long x = std::min(next, bytes - BYTES);  // the last block may overlap the one before
        Sums sums = {};
        for (int tap = 0; tap < taps; tap++) sums += widened(rows + tap * pitch + x) * weights[tap];
        write_rounded<Narrow>(to + x, sums);
    }
}

// A pixel has CHANNELS bytes; the first KEPT are written as planes.
template <int CHANNELS, int KEPT>
static void write_planes(const uint8_t* line, long side, uint8_t* planes) {
    for (int channel = 0; channel < KEPT; channel++)
        for (long x = 0; x < side; x++) planes[channel * side * side + x] = line[x * CHANNELS + channel];
}

static thread_local std::vector<uint8_t> room;

template <int CHANNELS, int KEPT>
static void rows_first(const uint8_t* pixels, long width, const FilterTaps& across, const FilterTaps& down, long side,
                       uint8_t* planes) {
    const long first = down.starts[0], last = down.starts[side - 1] + down.count;
    const long pitch = (side * CHANNELS + BYTES - 1) / BYTES * BYTES;
    room.resize((last - first + 1) * pitch);
    uint8_t *rows = room.data(), *line = rows + (last - first) * pitch;
    for (long y = first; y < last; y++)
        along_row<CHANNELS>(pixels + y * width * CHANNELS, across, 0, side, rows + (y - first) * pitch);
    const int32_t* weights = down.weights.data();
    for (long y = 0; y < side; y++, weights += down.count) {
        along_columns(rows + (down.starts[y] - first) * pitch, pitch, pitch, weights, down.count, line);
        write_planes<CHANNELS, KEPT>(line, side, planes + y * side);
    }
}

template <int CHANNELS, int KEPT>
static void columns_first(const uint8_t* pixels, long width, const FilterTaps& across, const FilterTaps& down,
                          long side, uint8_t* planes) {
    const long first = across.starts[0], bytes = across.starts[side - 1] + across.count - first;
    const long pitch = width * CHANNELS;
    room.resize(bytes + side * CHANNELS);
    uint8_t *part = room.data(), *line = part + bytes;
    const int32_t* weights = down.weights.data();
    for (long y = 0; y < side; y++, weights += down.count) {
        along_columns(pixels + down.starts[y] * pitch + first, pitch, bytes, weights, down.count, part);
        along_row<CHANNELS>(part, across, first, side, line);
        write_planes<CHANNELS, KEPT>(line, side, planes + y * side);
    }
}
