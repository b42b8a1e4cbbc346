// What native/bottleneck.py calls: convolutions between group norms, pooling, and the norms' statistics.
//
// A group norm with its ReLU is, for each picture, a scale and a shift of each channel. The convolution behind it applies
// them to what it reads. The one before it takes the statistics while its sums are in registers: for each channel of a
// chunk of lines, the sums of (x - first) and (x - first)^2, where first is x of the chunk's first row. So no digits are
// lost where the mean is far from zero, and nothing depends on the number of threads.

#include "bottleneck.h"

constexpr int MOMENTS = 3;  // first, sum, sum of squares

// A picture or what a layer made of it. Pictures are planes, a map has its channels side by side.
template <class N>
struct Map {
    const typename N::Item* at;
    int height, width, channels, planar;
    const float *scale, *shift;  // of each channel, with a ReLU behind them; or null
};

// Where filters stand: the first at (-top, -left), `stride` apart.
struct Filters {
    int side, stride, top, left;
};

// Write the part of line y that `filters` on `places` places see, with zeros beyond the map.
template <class N>
static void fill_line(const Map<N>& map, int y, const Filters& filters, int pixels, typename N::Item* to) {
    typedef typename N::Item Item;
    const int c = map.channels;
    if (y < 0 || y >= map.height) {
        std::fill(to, to + (size_t)pixels * c, Item(0));
        return;
    }
    const int before = std::min(filters.left, pixels), held = std::max(0, std::min(map.width, pixels - before));
    std::fill(to, to + (size_t)before * c, Item(0));
    std::fill(to + (size_t)(before + held) * c, to + (size_t)pixels * c, Item(0));
    to += (size_t)before * c;
    if (map.planar) {
        for (int plane = 0; plane < c; plane++) {
            const Item* from = map.at + ((size_t)plane * map.height + y) * map.width;
            for (int x = 0; x < held; x++) to[(size_t)x * c + plane] = from[x];
        }
        return;
    }
    const Item* from = map.at + (size_t)y * map.width * c;
    if (map.scale == nullptr) {
        std::memcpy(to, from, (size_t)held * c * sizeof(Item));
    } else {
        for (int x = 0; x < held; x++) activate<N>(from + (size_t)x * c, c, map.scale, map.shift, to + (size_t)x * c);
    }
}

// y = convolution(x) (+ add) and its moments, `lines` lines of the result at a time.
// moments are (batch, chunks, MOMENTS, outputs), or null.
template <class N>
static void convolve(const void* x_, int batch, int height, int width, int channels, int planar, const float* scale,
                     const float* shift, const void* packed_, int side, int stride, int top, int left, int tall,
                     int wide, int outputs, const void* add_, void* y_, float* moments, int lines, int threads) {
    typedef typename N::Item Item;
    const typename N::Word* packed = (const typename N::Word*)packed_;
    const Filters filters = {side, stride, top, left};
    const bool direct = side == 1 && scale == nullptr && !planar;
    const int chunks = (tall + lines - 1) / lines, all = panels(outputs), pixels = (wide - 1) * stride + side;
    const int groups = batch * chunks < 2 * threads ? std::min(all, 2 * threads) : 1;
    const size_t line = (size_t)(direct ? width : pixels) * channels;
    const Pieces pieces = {side, (long)line, (side * channels + N::STEP - 1) / N::STEP};
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < batch * chunks * groups; item++) {
        const int group = item % groups, chunk = item / groups % chunks, image = item / groups / chunks;
        const int start = chunk * lines, some = std::min(lines, tall - start);
        const Map<N> map = {(const Item*)x_ + (size_t)image * height * width * channels,
                            height,
                            width,
                            channels,
                            planar,
                            scale == nullptr ? nullptr : scale + (size_t)image * channels,
                            scale == nullptr ? nullptr : shift + (size_t)image * channels};
        const Item* from = map.at + (size_t)start * stride * line;
        if (!direct) {
            const int read = (some - 1) * stride + side;
            Item* band = scratch<Item>(0, read * line + N::STEP);
            for (int i = 0; i < read; i++) fill_line<N>(map, start * stride - top + i, filters, pixels, band + i * line);
            std::fill(band + read * line, band + read * line + N::STEP, Item(0));  // a last step may look beyond
            from = band;
        }
        const int count = some * wide;
        const Item** rows = scratch<const Item*>(0, count);
        for (int i = 0; i < count; i++)
            rows[i] = from + (i / wide) * stride * line + (size_t)(i % wide) * stride * channels;
        const size_t place = ((size_t)image * tall + start) * wide * outputs;
        Item* y = (Item*)y_ + place;
        const Item* add = add_ == nullptr ? nullptr : (const Item*)add_ + place;
        float* taken = moments == nullptr ? nullptr : moments + ((size_t)image * chunks + chunk) * MOMENTS * outputs;
        auto finish = [&](int row, int held, int c, const Lanes* column) {
            Lanes first = Lanes{}, sum = Lanes{}, squares = Lanes{};
            if (taken != nullptr && row > 0) {
                first = load(taken + c);
                sum = load(taken + outputs + c);
                squares = load(taken + 2 * outputs + c);
            }
            for (int r = 0; r < held; r++) {
                const size_t at = (size_t)(row + r) * outputs + c;
                const Lanes value = add == nullptr ? column[r] : column[r] + N::read(add + at);
                N::write(y + at, value);
                if (row + r == 0) first = value;
                const Lanes far = value - first;
                sum += far;
                squares += far * far;
            }
            if (taken != nullptr) {
                store(taken + c, first);
                store(taken + outputs + c, sum);
                store(taken + 2 * outputs + c, squares);
            }
        };
        gathered_product<N>(rows, count, pieces, packed, outputs, all * group / groups, all * (group + 1) / groups,
                            finish);
    }
}

// The moments of x (batch, rows, channels), `chunk` rows at a time.
template <class N>
static void measure(const void* x_, int batch, int rows, int channels, int chunk, float* moments, int threads) {
    typedef typename N::Item Item;
    const int chunks = (rows + chunk - 1) / chunk;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < batch * chunks; item++) {
        const int start = item % chunks * chunk, count = std::min(chunk, rows - start);
        const Item* x = (const Item*)x_ + ((size_t)(item / chunks) * rows + start) * channels;
        float* taken = moments + (size_t)item * MOMENTS * channels;
        for (int c = 0; c < channels; c += LANES) {
            const Lanes first = N::read(x + c);
            Lanes sum = Lanes{}, squares = Lanes{};
            for (int r = 1; r < count; r++) {
                const Lanes far = N::read(x + (size_t)r * channels + c) - first;
                sum += far;
                squares += far * far;
            }
            store(taken + c, first);
            store(taken + channels + c, sum);
            store(taken + 2 * channels + c, squares);
        }
    }
}

// Scale and shift (batch, channels) of a group norm from the moments of `rows` rows, taken `chunk` rows at a time.
static void settle(const float* moments, int batch, int rows, int chunk, int channels, int groups, const float* weight,
                   const float* bias, float eps, float* scale, float* shift) {
    const int chunks = (rows + chunk - 1) / chunk, each = channels / groups;
    for (int item = 0; item < batch * groups; item++) {
        const int image = item / groups, from = item % groups * each;
        double total = 0, spread = 0;
        for (int pass = 0; pass < 2; pass++) {  // the mean first, then the squares around it
            const double mean = total / ((double)rows * each);
            for (int j = 0; j < chunks; j++) {
                const float* taken = moments + ((size_t)image * chunks + j) * MOMENTS * channels;
                const double count = std::min(chunk, rows - j * chunk);
                for (int c = from; c < from + each; c++) {
                    const double sum = taken[channels + c], far = taken[c] - mean;
                    if (pass == 0) total += count * taken[c] + sum;
                    else spread += taken[2 * channels + c] + far * (2 * sum + count * far);
                }
            }
        }
        const double mean = total / ((double)rows * each);
        const double inverse = 1 / std::sqrt(spread / ((double)rows * each) + eps);
        for (int c = from; c < from + each; c++) {
            scale[(size_t)image * channels + c] = (float)(inverse * weight[c]);
            shift[(size_t)image * channels + c] = (float)(bias[c] - mean * inverse * weight[c]);
        }
    }
}

// y = relu(norm(x) + norm(z)); the norm of x is left out where its scale is null.
template <class N>
static void join(const void* x_, const float* scale_x, const float* shift_x, const void* z_, const float* scale_z,
                 const float* shift_z, int batch, int rows, int channels, void* y_, int threads) {
    typedef typename N::Item Item;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int item = 0; item < batch * rows; item++) {
        const size_t at = (size_t)item * channels, image = (size_t)(item / rows) * channels;
        const Item *x = (const Item*)x_ + at, *z = (const Item*)z_ + at;
        for (int c = 0; c < channels; c += LANES) {
            Lanes sum = N::read(z + c) * load(scale_z + image + c) + load(shift_z + image + c);
            Lanes kept = N::read(x + c);
            if (scale_x != nullptr) kept = kept * load(scale_x + image + c) + load(shift_x + image + c);
            N::write((Item*)y_ + at + c, largest(sum + kept, Lanes{}));
        }
    }
}

// The largest of what each filter would see, where zeros lie beyond the map.
template <class N>
static void pool(const void* x_, int batch, int height, int width, int channels, const float* scale, const float* shift,
                 int side, int stride, int top, int left, int tall, int wide, void* y_, int threads) {
    typedef typename N::Item Item;
    const Filters filters = {side, stride, top, left};
    const int pixels = (wide - 1) * stride + side;
    const size_t line = (size_t)pixels * channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int item = 0; item < batch * tall; item++) {
        const int image = item / tall, y = item % tall;
        const Map<N> map = {(const Item*)x_ + (size_t)image * height * width * channels,
                            height,
                            width,
                            channels,
                            0,
                            scale == nullptr ? nullptr : scale + (size_t)image * channels,
                            scale == nullptr ? nullptr : shift + (size_t)image * channels};
        Item* band = scratch<Item>(0, side * line);
        Item* to = (Item*)y_ + (size_t)item * wide * channels;
        for (int i = 0; i < side; i++) fill_line<N>(map, y * stride - top + i, filters, pixels, band + i * line);
        for (int x = 0; x < wide; x++, to += channels) {
            const Item* seen = band + (size_t)x * stride * channels;
            for (int c = 0; c < channels; c += LANES) {
                Lanes most = N::read(seen + c);
                for (int i = 0; i < side; i++)
                    for (int j = 0; j < side; j++)
                        most = largest(most, N::read(seen + i * line + (size_t)j * channels + c));
                N::write(to + c, most);
            }
        }
    }
}

extern "C" {
void vitrail_settle(const float* moments, int batch, int rows, int chunk, int channels, int groups, const float* weight,
                    const float* bias, float eps, float* scale, float* shift) {
    settle(moments, batch, rows, chunk, channels, groups, weight, bias, eps, scale, shift);
}

#define FOR(name, N)                                                                                                   \
    void vitrail_convolve_##name(const void* x, int batch, int height, int width, int channels, int planar,            \
                                 const float* scale, const float* shift, const void* packed, int side, int stride,     \
                                 int top, int left, int tall, int wide, int outputs, const void* add, void* y,         \
                                 float* moments, int lines, int threads) {                                             \
        convolve<N>(x, batch, height, width, channels, planar, scale, shift, packed, side, stride, top, left, tall,    \
                    wide, outputs, add, y, moments, lines, threads);                                                   \
    }                                                                                                                  \
    void vitrail_measure_##name(const void* x, int batch, int rows, int channels, int chunk, float* moments,           \
                                int threads) {                                                                         \
        measure<N>(x, batch, rows, channels, chunk, moments, threads);                                                 \
    }                                                                                                                  \
    void vitrail_join_##name(const void* x, const float* scale_x, const float* shift_x, const void* z,                 \
                             const float* scale_z, const float* shift_z, int batch, int rows, int channels, void* y,   \
                             int threads) {                                                                            \
        join<N>(x, scale_x, shift_x, z, scale_z, shift_z, batch, rows, channels, y, threads);                          \
    }                                                                                                                  \
    void vitrail_pool_##name(const void* x, int batch, int height, int width, int channels, const float* scale,        \
                             const float* shift, int side, int stride, int top, int left, int tall, int wide, void* y, \
                             int threads) {                                                                            \
        pool<N>(x, batch, height, width, channels, scale, shift, side, stride, top, left, tall, wide, y, threads);     \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
