// Exports for native/image_resize.py: image preprocessing, bit-identical to Pillow and PyTorch.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "resize.h"

// Index of pixel x under reflection padding.
static inline long mirrored(long x, long length) { return x < 0 ? -x : x >= length ? 2 * length - 2 - x : x; }

// One row of a crop that starts at pixel `from` of a row (left of it if negative).
static void window_line(const uint8_t* line, long length, long from, bool reflect, uint8_t* to) {
    const long first = std::min(length, std::max(0l, -from)), last = std::max(first, std::min(length, length - from));
    for (long x = 0; x < first; x++) to[x] = reflect ? line[mirrored(from + x, length)] : 0;
    memcpy(to + first, line + from + first, last - first);
    for (long x = last; x < length; x++) to[x] = reflect ? line[mirrored(from + x, length)] : 0;
}

// Crop each padded image at offset (`tops`, `lefts`), and flip it horizontally if `flipped`.
extern "C" void vitrail_move(
    const uint8_t* pixels, long count, long channels, long height, long width, const int64_t* tops,
    const int64_t* lefts, const uint8_t* flipped, int reflect, uint8_t* moved) {
    std::vector<uint8_t> line(width);
    for (long i = 0; i < count; i++)
        for (long channel = 0; channel < channels; channel++, pixels += height * width)
            for (long y = 0; y < height; y++, moved += width) {
                const long inside = tops[i] + y;
                if (!reflect && (inside < 0 || inside >= height)) {
                    memset(moved, 0, width);
                    continue;
                }
                const uint8_t* from = pixels + (reflect ? mirrored(inside, height) : inside) * width;
                window_line(from, width, lefts[i], reflect, flipped[i] ? line.data() : moved);
                if (flipped[i]) std::reverse_copy(line.begin(), line.end(), moved);
            }
}

// (pixel / 255 - mean) / std, each step rounded as in PyTorch; grayscale is broadcast to all output channels.
extern "C" void vitrail_normalize(
    const uint8_t* pixels, long count, long given, long channels, long area, const float* means,
    const float* deviations, float* images, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long plane = 0; plane < count * channels; plane++) {
        const long channel = plane % channels;
        const uint8_t* from = pixels + (plane / channels * given + (given == 1 ? 0 : channel)) * area;
        const float mean = means[channel], deviation = deviations[channel];
        float* to = images + plane * area;
        for (long i = 0; i < area; i++) to[i] = (float(from[i]) / 255.0f - mean) / deviation;
    }
}

// Resize the region `box` of an image to `wide` x `tall`, and crop a square. Each pass rounds, so it matters whether
// `columns` come first.
// Returns 0 if a row or column of the image is shorter than the filter.
extern "C" int vitrail_resize(
    const uint8_t* pixels, long width, long height, int stored, const long* box, long wide, long tall, long left,
    long top, long side, int cubic, int columns, uint8_t* planes) {
    const Filter filter = cubic ? Filter{2.0, bicubic} : Filter{1.0, bilinear};
    static thread_local FilterTaps across, down;
    if (!across.fill({width, box[0], box[2], wide, left, side, stored, BYTES, cubic}, filter)) return 0;
    if (!down.fill({height, box[1], box[3], tall, top, side, 1, 1, cubic}, filter)) return 0;
    const auto resize = columns ? stored == 1 ? columns_first<1, 1> : columns_first<4, 3>
                                : stored == 1 ? rows_first<1, 1> : rows_first<4, 3>;
    resize(pixels, width, across, down, side, planes);
    return 1;
}
