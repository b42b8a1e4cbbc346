// Exports for native/bottleneck.py: convolutions between group norms, pooling, and statistics of the norms.
//
// For each image, a group norm with its ReLU is a scale and a shift of each channel. The next convolution applies them
// to its input. The previous one computes the statistics in its epilogue: for each channel of a chunk of rows, the sums
// of (x - first) and (x - first)^2, with first = x of the chunk's first row. So there is no cancellation for a mean far
// from zero, and results do not depend on the number of threads. All maps have the residual dtype; the norm casts to
// the compute dtype.

#include "convolution.h"

constexpr int MOMENTS = 3;  // first, sum, sum of squares

// Moments of LANES channels, with stride `channels`.
struct ShiftedMoments {
    Vec first = Vec{}, sum = Vec{}, squares = Vec{};

    void read(const float* from, int channels) {
        first = load(from);
        sum = load(from + channels);
        squares = load(from + 2 * channels);
    }
    void see(Vec x) {
        const Vec far = x - first;
        sum += far;
        squares += far * far;
    }
    void write(float* to, int channels) const {
        store(to, first);
        store(to + channels, sum);
        store(to + 2 * channels, squares);
    }
};

// y = convolution(x) (+ add) and its moments, in blocks of `lines` output rows.
// moments are (batch, chunks, MOMENTS, outputs).
template <class X, class N>
static void convolve(const Convolution<X, N>& conv, const void* add_, void* y_, float* moments, int lines,
                     int threads) {
    typedef typename X::Item Item;
    const int chunks = (conv.tall + lines - 1) / lines, outputs = conv.outputs;
    parallel_lines(conv, lines, true, threads, [&](Lines some, auto&& multiply) {
        Item* y = (Item*)y_ + some.first * outputs;
        const Item* add = add_ == nullptr ? nullptr : (const Item*)add_ + some.first * outputs;
        float* taken = moments + ((size_t)some.image * chunks + some.chunk) * MOMENTS * outputs;
        multiply([=](int row, int held, int c, const Vec* column) {
            ShiftedMoments seen;
            if (row > 0) seen.read(taken + c, outputs);
            for (int r = 0; r < held; r++) {
                const size_t at = (size_t)(row + r) * outputs + c;
                const Vec value = add == nullptr ? column[r] : column[r] + X::read(add + at);
                X::write(y + at, value);
                if (row + r == 0) seen.first = value;
                seen.see(value);
            }
            seen.write(taken + c, outputs);
        });
    });
}

// Moments of x (batch, rows, channels), in chunks of `chunk` rows.
template <class X>
static void measure(const void* x_, int batch, int rows, int channels, int chunk, float* moments, int threads) {
    typedef typename X::Item Item;
    const int chunks = (rows + chunk - 1) / chunk;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < batch * chunks; item++) {
        const int start = item % chunks * chunk, count = std::min(chunk, rows - start);
        const Item* x = (const Item*)x_ + ((size_t)(item / chunks) * rows + start) * channels;
        float* taken = moments + (size_t)item * MOMENTS * channels;
        for (int c = 0; c < channels; c += LANES) {
            ShiftedMoments seen = {X::read(x + c)};
            for (int r = 1; r < count; r++) seen.see(X::read(x + (size_t)r * channels + c));
            seen.write(taken + c, channels);
        }
    }
}

// Scale and shift (batch, channels) of a group norm, from the moments of `rows` rows in chunks of `chunk` rows.
static void finalize(const float* moments, int batch, int rows, int chunk, int channels, int groups,
                     const float* weight, const float* bias, float eps, float* scale, float* shift) {
    const int chunks = (rows + chunk - 1) / chunk, each = channels / groups;
    for (int item = 0; item < batch * groups; item++) {
        const int image = item / groups, from = item % groups * each;
        double total = 0, spread = 0;
        for (int pass = 0; pass < 2; pass++) {  // first the mean, then squared deviations
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

// y = relu(norm(x) + norm(z)), without the norm of x if its scale is null.
template <class X>
static void join(const void* x_, const float* scale_x, const float* shift_x, const void* z_, const float* scale_z,
                 const float* shift_z, int batch, int rows, int channels, void* y_, int threads) {
    typedef typename X::Item Item;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int item = 0; item < batch * rows; item++) {
        const size_t at = (size_t)item * channels, image = (size_t)(item / rows) * channels;
        const Item *x = (const Item*)x_ + at, *z = (const Item*)z_ + at;
        for (int c = 0; c < channels; c += LANES) {
            Vec sum = X::read(z + c) * load(scale_z + image + c) + load(shift_z + image + c);
            Vec kept = X::read(x + c);
            if (scale_x != nullptr) kept = kept * load(scale_x + image + c) + load(shift_x + image + c);
            X::write((Item*)y_ + at + c, max(Vec{}, sum + kept));
        }
    }
}

// Max pooling with zero padding.
template <class X>
static void pool(const Map<X>& x, int batch, Filters filters, int tall, int wide, void* y_, int threads) {
    typedef typename X::Item Item;
    const int side = filters.side, channels = x.channels, pixels = (wide - 1) * filters.stride + side;
    const size_t line = (size_t)pixels * channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int item = 0; item < batch * tall; item++) {
        const int image = item / tall, y = item % tall;
        const Map<X> map = x.of(image);
        Item* band = scratch<Item>(0, side * line);
        Item* to = (Item*)y_ + (size_t)item * wide * channels;
        for (int i = 0; i < side; i++)
            fill_line<X, X>(map, y * filters.stride - filters.top + i, filters, pixels, band + i * line);
        for (int place = 0; place < wide; place++, to += channels) {
            const Item* seen = band + (size_t)place * filters.stride * channels;
            for (int c = 0; c < channels; c += LANES) {
                Vec most = X::read(seen + c);
                for (int i = 0; i < side; i++)
                    for (int j = 0; j < side; j++)
                        most = max_nan(most, X::read(seen + i * line + (size_t)j * channels + c));
                X::write(to + c, most);
            }
        }
    }
}

extern "C" {
void vitrail_finalize(const float* moments, int batch, int rows, int chunk, int channels, int groups,
                      const float* weight, const float* bias, float eps, float* scale, float* shift) {
    finalize(moments, batch, rows, chunk, channels, groups, weight, bias, eps, scale, shift);
}

#define FOR(name, N)                                                                                                   \
    void vitrail_convolve_##name(const void* x, int batch, int height, int width, int channels, int planar,            \
                                 const float* scale, const float* shift, const void* packed, int side, int stride,     \
                                 int top, int left, int tall, int wide, int outputs, const void* add, void* y,         \
                                 float* moments, int lines, int threads) {                                             \
        typedef N::Residual X;                                                                                         \
        convolve<X, N>({{(const X::Item*)x, height, width, channels, planar, scale, shift},                            \
                        batch,                                                                                         \
                        {side, stride, top, left},                                                                     \
                        (const N::KPack*)packed,                                                                       \
                        tall,                                                                                          \
                        wide,                                                                                          \
                        outputs},                                                                                      \
                       add, y, moments, lines, threads);                                                               \
    }                                                                                                                  \
    void vitrail_measure_##name(const void* x, int batch, int rows, int channels, int chunk, float* moments,           \
                                int threads) {                                                                         \
        measure<N::Residual>(x, batch, rows, channels, chunk, moments, threads);                                       \
    }                                                                                                                  \
    void vitrail_join_##name(const void* x, const float* scale_x, const float* shift_x, const void* z,                 \
                             const float* scale_z, const float* shift_z, int batch, int rows, int channels, void* y,   \
                             int threads) {                                                                            \
        join<N::Residual>(x, scale_x, shift_x, z, scale_z, shift_z, batch, rows, channels, y, threads);                \
    }                                                                                                                  \
    void vitrail_pool_##name(const void* x, int batch, int height, int width, int channels, const float* scale,        \
                             const float* shift, int side, int stride, int top, int left, int tall, int wide, void* y, \
                             int threads) {                                                                            \
        typedef N::Residual X;                                                                                         \
        pool<X>({(const X::Item*)x, height, width, channels, 0, scale, shift}, batch, {side, stride, top, left}, tall, \
                wide, y, threads);                                                                                     \
    }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
