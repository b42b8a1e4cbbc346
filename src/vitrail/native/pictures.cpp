// Resizing as Pillow does it, to the bit, of that part of a picture which its crop keeps.
//
// A pixel is a sum of source pixels with weights of 22 bits behind the point, first along the row, rounded to 8 bits,
// then along the column. Sums of integers do not depend on their order, so vectors give Pillow's very pixels.

#include <algorithm>
#include <cstdint>
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

// Compilers make single bytes of this conversion where they are not told the instruction.
static inline Sums widened(const uint8_t* at) {
#if defined(__AVX512F__)
    return (Sums)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)at));
#elif defined(__AVX2__)
    const __m256i halves[2] = {
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)at)),
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(at + 8)))};
    Sums sums;
    __builtin_memcpy(&sums, halves, sizeof sums);
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
    *reinterpret_cast<Result*>(to) = __builtin_convertvector(sums, Result);
}

// Add up what belongs to the same channel, and write one pixel.
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
    __builtin_memcpy(parts, &sums, sizeof parts);
    write_rounded<Pixel>(to, (parts[0] + parts[1]) + (parts[2] + parts[3]));
}

// One row: `starts` are bytes; each pixel has `taps` weights, one for each byte, a multiple of BYTES.
template <int CHANNELS>
static void along_row(
    const uint8_t* row, const int32_t* starts, const int32_t* weights, int taps, int side, uint8_t* to) {
    for (int x = 0; x < side; x++, weights += taps, to += CHANNELS) {
        const uint8_t* from = row + starts[x];
        Sums sums = {};
        for (int tap = 0; tap < taps; tap += BYTES) sums += widened(from + tap) * read(weights + tap);
        write_pixel<CHANNELS>(to, sums);
    }
}

static void along_columns(
    const uint8_t* rows, long pitch, const int32_t* weights, int taps, uint8_t* to) {
    for (long x = 0; x < pitch; x += BYTES) {
        Sums sums = {};
        for (int tap = 0; tap < taps; tap++) sums += widened(rows + tap * pitch + x) * weights[tap];
        write_rounded<Narrow>(to + x, sums);
    }
}

// A pixel has CHANNELS bytes, the first KEPT of which become planes.
template <int CHANNELS, int KEPT>
static void fit(
    const uint8_t* pixels, long width, const int32_t* across, const int32_t* across_weights, int across_taps,
    const int32_t* down, const int32_t* down_weights, int down_taps, int side, uint8_t* planes) {
    const int first = down[0], last = down[side - 1] + down_taps;
    const long pitch = (long(side) * CHANNELS + BYTES - 1) / BYTES * BYTES, plane = long(side) * side;
    static thread_local std::vector<uint8_t> kept;
    kept.resize((last - first + 1) * pitch);
    uint8_t *rows = kept.data(), *line = rows + (last - first) * pitch;
    for (int y = first; y < last; y++)
        along_row<CHANNELS>(
            pixels + y * width * CHANNELS, across, across_weights, across_taps, side, rows + (y - first) * pitch);
    for (int y = 0; y < side; y++, down_weights += down_taps) {
        along_columns(rows + (down[y] - first) * pitch, pitch, down_weights, down_taps, line);
        for (int channel = 0; channel < KEPT; channel++)
            for (int x = 0; x < side; x++) planes[channel * plane + long(y) * side + x] = line[x * CHANNELS + channel];
    }
}

extern "C" void vitrail_fit(
    const uint8_t* pixels, long width, int channels, const int32_t* across, const int32_t* across_weights,
    int across_taps, const int32_t* down, const int32_t* down_weights, int down_taps, int side, uint8_t* planes) {
    (channels == 1 ? fit<1, 1> : fit<4, 3>)(
        pixels, width, across, across_weights, across_taps, down, down_weights, down_taps, side, planes);
}
