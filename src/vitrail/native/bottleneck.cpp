// Exports for native/bottleneck.py: convolutions between norms, pooling, and statistics of group norms.
//
// For each image, a group norm with its ReLU is a scale and a shift of each channel. The next convolution applies them
// to its input. The previous one computes the statistics in its epilogue: for each channel of a chunk of rows, the sums
// of (x - first) and (x - first)^2, with first = x of the chunk's first row. So there is no cancellation for a mean far
// from zero, and results do not depend on the number of threads. All maps have the residual dtype; the norm casts to
// the compute dtype. With batch norms, whose statistics are known, the convolution adds the shift and
// applies the activation (`convolve_shifted`), and maps between two convolutions have the compute dtype.

#include "convolution.h"
#include "winograd.h"

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
        multiply([=](int row, auto held, int c, const Vec* column) {
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

// Arguments of `measure`.
struct MeasureArgs {
    const void* x;  // (batch, rows, channels)
    int batch, rows, channels;
    int chunk;       // rows of a chunk
    float* moments;  // (batch, chunks, MOMENTS, channels)
    int threads;
};

// Moments of a map.
template <class X>
static void measure(const MeasureArgs& a) {
    typedef typename X::Item Item;
    const int channels = a.channels, chunks = (a.rows + a.chunk - 1) / a.chunk;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (int item = 0; item < a.batch * chunks; item++) {
        const int start = item % chunks * a.chunk, count = std::min(a.chunk, a.rows - start);
        const Item* x = (const Item*)a.x + ((size_t)(item / chunks) * a.rows + start) * channels;
        float* taken = a.moments + (size_t)item * MOMENTS * channels;
        for (int c = 0; c < channels; c += LANES) {
            ShiftedMoments seen = {X::read(x + c)};
            for (int r = 1; r < count; r++) seen.see(X::read(x + (size_t)r * channels + c));
            seen.write(taken + c, channels);
        }
    }
}

// Arguments of `finalize`.
struct FinalizeArgs {
    const float* moments;  // (batch, chunks, MOMENTS, channels), of `rows` rows in chunks of `chunk` rows
    int batch, rows, chunk, channels, groups;
    const float* weight;  // (channels)
    const float* bias;    // (channels)
    float eps;
    float* scale;  // (batch, channels)
    float* shift;  // (batch, channels)
};

// Scale and shift of a group norm, from the moments.
static void finalize(const FinalizeArgs& a) {
    const int rows = a.rows, chunk = a.chunk, channels = a.channels;
    const int chunks = (rows + chunk - 1) / chunk, each = channels / a.groups;
    for (int item = 0; item < a.batch * a.groups; item++) {
        const int image = item / a.groups, from = item % a.groups * each;
        double total = 0, spread = 0;
        for (int pass = 0; pass < 2; pass++) {  // first the mean, then squared deviations
            const double mean = total / ((double)rows * each);
            for (int j = 0; j < chunks; j++) {
                const float* taken = a.moments + ((size_t)image * chunks + j) * MOMENTS * channels;
                const double count = std::min(chunk, rows - j * chunk);
                for (int c = from; c < from + each; c++) {
                    const double sum = taken[channels + c], far = taken[c] - mean;
                    if (pass == 0)
                        total += count * taken[c] + sum;
                    else
                        spread += taken[2 * channels + c] + far * (2 * sum + count * far);
                }
            }
        }
        const double mean = total / ((double)rows * each);
        const double inverse = 1 / std::sqrt(spread / ((double)rows * each) + a.eps);
        for (int c = from; c < from + each; c++) {
            a.scale[(size_t)image * channels + c] = (float)(inverse * a.weight[c]);
            a.shift[(size_t)image * channels + c] = (float)(a.bias[c] - mean * inverse * a.weight[c]);
        }
    }
}

// Arguments of `join`: maps (batch, rows, channels), scales and shifts (batch, channels).
struct JoinArgs {
    const void* x;
    const float* scale_x;  // or null
    const float* shift_x;  // or null
    const void* z;
    const float* scale_z;
    const float* shift_z;
    int batch, rows, channels;
    void* y;
    int threads;
};

// y = relu(norm(x) + norm(z)), without the norm of x if its scale is null.
template <class X>
static void join(const JoinArgs& a) {
    typedef typename X::Item Item;
    const int channels = a.channels;
    const float *scale_x = a.scale_x, *shift_x = a.shift_x, *scale_z = a.scale_z, *shift_z = a.shift_z;
#pragma omp parallel for schedule(static) num_threads(a.threads)
    for (int item = 0; item < a.batch * a.rows; item++) {
        const size_t at = (size_t)item * channels, image = (size_t)(item / a.rows) * channels;
        const Item *x = (const Item*)a.x + at, *z = (const Item*)a.z + at;
        for (int c = 0; c < channels; c += LANES) {
            Vec sum = X::read(z + c) * load(scale_z + image + c) + load(shift_z + image + c);
            Vec kept = X::read(x + c);
            if (scale_x != nullptr) kept = kept * load(scale_x + image + c) + load(shift_x + image + c);
            X::write((Item*)a.y + at + c, max(Vec{}, sum + kept));
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

// Arguments of `convolve`.
struct ConvolveMomentsArgs {
    MapArgs map;
    WindowArgs window;
    const void* panels;  // packed filters
    int outputs;
    const void* add;  // as y, or null
    void* y;          // (batch, tall, wide, outputs)
    float* moments;   // (batch, chunks, MOMENTS, outputs)
    int lines;        // output rows of a chunk
    int threads;
};

template <class N>
static void convolve(const ConvolveMomentsArgs& a) {
    typedef typename N::Residual X;
    convolve(Convolution<X, N>::of(a.map, a.window, a.panels, a.outputs), a.add, a.y, a.moments, a.lines, a.threads);
}

// Arguments of `convolve_shifted`.
struct ConvolveShiftedArgs {
    MapArgs map;
    WindowArgs window;
    const void* panels;  // packed filters, with the scale of a norm folded in
    int outputs;
    const float* shift;  // (outputs)
    const void* add;     // as y, or null
    int activation;      // one of ACTIVATIONS
    void* y;             // (batch, tall, wide, outputs)
    int lines;           // output rows of a block
    int threads;
};

// Activations after a convolution.
enum { NONE = 0, RELU = 1, GELU_AFTER = 2 };

// y = act(convolution(x) + shift (+ add)): a norm with known statistics needs no pass of its own.
template <class X, class N, class To>
static void convolve_shifted(const ConvolveShiftedArgs& a) {
    typedef typename To::Item Item;
    const auto conv = Convolution<X, N>::of(a.map, a.window, a.panels, a.outputs);
    const int outputs = a.outputs;
    const float* shifts = a.shift;
    const Vec least = broadcast(a.activation == RELU ? 0.0f : -INFINITY);
    const bool gelu = a.activation == GELU_AFTER;
    parallel_lines(conv, a.lines, true, a.threads, [&](Lines some, auto&& multiply) {
        Item* y = (Item*)a.y + some.first * outputs;
        const Item* add = a.add == nullptr ? nullptr : (const Item*)a.add + some.first * outputs;
        multiply([=](int row, auto held, int c, const Vec* column) {
            const Vec shift = load(shifts + c);
            for (int r = 0; r < held; r++) {
                const size_t at = (size_t)(row + r) * outputs + c;
                Vec value = column[r] + shift;
                if (add != nullptr) value += To::read(add + at);
                To::write(y + at, gelu ? N::gelu(value) : max(least, value));
            }
        });
    });
}

// Arguments of `pool`.
struct MaxPoolArgs {
    MapArgs map;
    WindowArgs window;
    void* y;  // (batch, tall, wide, channels)
    int threads;
};

template <class X>
static void pool(const MaxPoolArgs& a) {
    const WindowArgs& w = a.window;
    pool<X>(Map<X>::of(a.map), a.map.batch, {w.side, w.stride, w.top, w.left}, w.tall, w.wide, a.y, a.threads);
}

extern "C" {
SIZE_OF(ConvolveMomentsArgs)
SIZE_OF(ConvolveShiftedArgs)
SIZE_OF(MeasureArgs)
SIZE_OF(FinalizeArgs)
SIZE_OF(JoinArgs)
SIZE_OF(MaxPoolArgs)
SIZE_OF(Convolve3x3Args)

void vitrail_finalize(const FinalizeArgs& a) { finalize(a); }

#define FOR(name, N)                                                               \
    void vitrail_convolve_##name(const ConvolveMomentsArgs& a) { convolve<N>(a); } \
    void vitrail_measure_##name(const MeasureArgs& a) { measure<N::Residual>(a); } \
    void vitrail_join_##name(const JoinArgs& a) { join<N::Residual>(a); }          \
    void vitrail_pool_##name(const MaxPoolArgs& a) { pool<N::Residual>(a); }       \
    void vitrail_convolve_3x3_by_2_##name(const Convolve3x3Args& a) { convolve_3x3<N, N, N, Tiles2>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)

void vitrail_convolve_3x3_by_2_bfloat16_float16(const Convolve3x3Args& a) {
    convolve_3x3<BFloat16, BFloat16, Float16, Tiles2>(a);
}
#endif

#define SHIFTED(name, X, N, To) \
    void vitrail_convolve_shifted_##name(const ConvolveShiftedArgs& a) { convolve_shifted<X, N, To>(a); }

SHIFTED(float32, Float32, Float32, Float32)
#if defined(__AVX512BF16__)
SHIFTED(bfloat16, BFloat16, BFloat16, BFloat16)
SHIFTED(bfloat16_float16, BFloat16, BFloat16, Float16)
SHIFTED(float16_bfloat16, Float16, BFloat16, BFloat16)
SHIFTED(float16, Float16, BFloat16, Float16)
#endif
}
