// Exports for native/image_resize.py: image preprocessing, bit-identical to Pillow and PyTorch.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "arguments.h"
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

// Arguments of `vitrail_move`: images (count, channels, height, width).
struct MoveArgs {
    const uint8_t* pixels;
    long count, channels, height, width;
    const int64_t* tops;     // (count)
    const int64_t* lefts;    // (count)
    const uint8_t* flipped;  // (count)
    int reflect;             // padding by reflection, else by zeros
    uint8_t* moved;
};

// Arguments of `vitrail_normalize`.
struct NormalizeArgs {
    const uint8_t* pixels;  // (count, given, area), `given` is 1 or `channels`
    long count, given, channels, area;
    const float* means;       // (channels)
    const float* deviations;  // (channels)
    float* images;            // (count, channels, area)
    int threads;
};

// Arguments of `vitrail_resize`.
struct ResizeArgs {
    const uint8_t* pixels;  // (height, width, stored)
    long width, height;
    int stored;   // bytes of a pixel
    long box[4];  // left, top, right, bottom
    long wide, tall, left, top, side;
    int cubic;    // else bilinear
    int columns;  // whether columns are resized first
    uint8_t* planes;
};

extern "C" {
SIZE_OF(MoveArgs)
SIZE_OF(NormalizeArgs)
SIZE_OF(ResizeArgs)

// Crop each padded image at offset (`tops`, `lefts`), and flip it horizontally if `flipped`.
void vitrail_move(const MoveArgs& a) {
    const long height = a.height, width = a.width;
    const uint8_t* pixels = a.pixels;
    uint8_t* moved = a.moved;
    std::vector<uint8_t> line(width);
    for (long i = 0; i < a.count; i++)
        for (long channel = 0; channel < a.channels; channel++, pixels += height * width)
            for (long y = 0; y < height; y++, moved += width) {
                const long inside = a.tops[i] + y;
                if (!a.reflect && (inside < 0 || inside >= height)) {
                    memset(moved, 0, width);
                    continue;
                }
                const uint8_t* from = pixels + (a.reflect ? mirrored(inside, height) : inside) * width;
                window_line(from, width, a.lefts[i], a.reflect, a.flipped[i] ? line.data() : moved);
                if (a.flipped[i]) std::reverse_copy(line.begin(), line.end(), moved);
            }
}

// (pixel / 255 - mean) / std, each step rounded as in PyTorch; grayscale is broadcast to all output channels.
void vitrail_normalize(const NormalizeArgs& a) {
    const long channels = a.channels, area = a.area;
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1)
    for (long plane = 0; plane < a.count * channels; plane++) {
        const long channel = plane % channels;
        const uint8_t* from = a.pixels + (plane / channels * a.given + (a.given == 1 ? 0 : channel)) * area;
        const float mean = a.means[channel], deviation = a.deviations[channel];
        float* to = a.images + plane * area;
        for (long i = 0; i < area; i++) to[i] = (float(from[i]) / 255.0f - mean) / deviation;
    }
}

// Resize the region `box` of an image to `wide` x `tall`, and crop a square. Each pass rounds, so it matters whether
// `columns` come first. Returns 0 if a row or column of the image is shorter than the filter.
int vitrail_resize(const ResizeArgs& a) {
    const Filter filter = a.cubic ? Filter{2.0, bicubic} : Filter{1.0, bilinear};
    static thread_local FilterTaps across, down;
    if (!across.fill({a.width, a.box[0], a.box[2], a.wide, a.left, a.side, a.stored, BYTES, a.cubic}, filter)) return 0;
    if (!down.fill({a.height, a.box[1], a.box[3], a.tall, a.top, a.side, 1, 1, a.cubic}, filter)) return 0;
    const auto resize = a.columns       ? a.stored == 1 ? columns_first<1, 1> : columns_first<4, 3>
                        : a.stored == 1 ? rows_first<1, 1>
                                        : rows_first<4, 3>;
    resize(a.pixels, a.width, across, down, a.side, a.planes);
    return 1;
}
}
