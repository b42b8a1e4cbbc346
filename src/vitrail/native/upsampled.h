// 3 x 3 convolution of a map that bilinear interpolation enlarged, from products at the original size.
//
//     conv3x3(up(x))[Y, X] = sum over taps t of up(W_t x)[Y + t_y, X + t_x]
//
// Interpolation and the product over channels commute, so the GEMM runs on the cells of the small map: for an
// enlargement of 4 per side a sixteenth of the products. Taps outside of the large map are zero.

#pragma once

#include "arguments.h"
#include "gemm.h"

// Weight of a small line in a line of the large map, after tap `tap`.
struct TapWeight {
    int line, tap;
    float weight;
};

// The at most six weights of large line `at`: three taps, two neighbouring small lines each. Coordinates are those of
// interpolation with aligned edges (PyTorch's align_corners=False).
static int tap_weights(int at, int large, int small, TapWeight* to) {
    int count = 0;
    const float scale = (float)small / large;
    for (int tap = 0; tap < 3; tap++) {
        const int place = at + tap - 1;
        if (place < 0 || place >= large) continue;
        const float from = std::max(scale * (place + 0.5f) - 0.5f, 0.0f);
        const int line = std::min((int)from, small - 1), next = std::min(line + 1, small - 1);
        const float part = std::min(from - line, 1.0f);
        to[count++] = {line, tap, 1.0f - part};
        to[count++] = {next, tap, part};
    }
    return count;
}

// Arguments of `add_upsampled`.
struct AddUpsampledArgs {
    const float* products;  // (batch, tall, wide, 3, 3, outputs): all taps of each small cell
    int batch, tall, wide, outputs;
    float* y;  // (batch, height, width, outputs)
    int height, width;
    int add;  // whether the result is added to y
    int threads;
};

// Add the convolution of the enlarged map to y, or write it.
static void add_upsampled(const AddUpsampledArgs& a) {
    const int batch = a.batch, tall = a.tall, wide = a.wide, outputs = a.outputs, height = a.height, width = a.width;
    const float* products = a.products;
    float* y = a.y;
    const int add = a.add, threads = a.threads;
    const size_t cell = (size_t)9 * outputs;
    std::vector<TapWeight> across((size_t)width * 6);
    std::vector<int> counts(width);
    for (int x = 0; x < width; x++) counts[x] = tap_weights(x, width, wide, across.data() + x * 6);
#pragma omp parallel for num_threads(threads)
    for (long item = 0; item < (long)batch * height; item++) {
        const float* image = products + (size_t)(item / height) * tall * wide * cell;
        TapWeight down[6];
        const int lines = tap_weights((int)(item % height), height, tall, down);
        const size_t row = (size_t)3 * outputs;
        float* mixed = scratch<float>(0, wide * row);  // (wide, 3, outputs): the vertical sum
        for (int x = 0; x < wide; x++)
            for (size_t i = 0; i < row; i += LANES) {
                const int left = (int)std::min<size_t>(LANES, row - i);
                Vec sum = Vec{};
                for (int l = 0; l < lines; l++)
                    sum += down[l].weight *
                           load_partial<Float32>(
                               image + ((size_t)down[l].line * wide + x) * cell + down[l].tap * row + i, left);
                store_partial<Float32>(mixed + x * row + i, sum, left);
            }
        for (int x = 0; x < width; x++) {
            float* to = y + ((size_t)item * width + x) * outputs;
            const TapWeight* own = across.data() + x * 6;
            for (int c = 0; c < outputs; c += LANES) {
                const int left = outputs - c;
                Vec sum = add ? load_partial<Float32>(to + c, left) : Vec{};
                for (int l = 0; l < counts[x]; l++)
                    sum += own[l].weight *
                           load_partial<Float32>(mixed + own[l].line * row + (size_t)own[l].tap * outputs + c, left);
                store_partial<Float32>(to + c, sum, left);
            }
        }
    }
}
