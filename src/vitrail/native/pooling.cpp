// Exports for native/pooling.py: both branches of a PoolFormer block.

#include "gemm_layer.h"

// Parallel variance of Chan, Golub and LeVeque: no cancellation for a large mean, and each part is read while it is in
// cache.
struct Welford {
    double count = 0, mean = 0, squares = 0;

    void add(long size, Moments part) {
        const double all = count + size, apart = part.mean - mean;
        mean += apart * size / all;
        squares += part.squares + apart * apart * count * size / all;
        count = all;
    }
};

// Mean and scale of each image. The part size is fixed, so results do not depend on the number of threads.
template <class N>
static std::vector<NormStats> norm_stats(const typename N::Item* x, long images, long size, float eps, int threads) {
    const long part = 4096, parts = (size + part - 1) / part;
    std::vector<Moments> some(images * parts);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < images * parts; i++) {
        const long first = i % parts * part;
        some[i] = moments_of<N>(x + i / parts * size + first, (int)std::min(part, size - first));
    }
    std::vector<NormStats> found(images);
    for (long p = 0; p < images; p++) {
        Welford all;
        for (long i = 0; i < parts; i++) all.add(std::min(part, size - i * part), some[p * parts + i]);
        found[p] = {(float)all.mean, 1.0f / std::sqrt((float)(all.squares / all.count) + eps)};
    }
    return found;
}

// One row of cells: y = x + factor (average pooling(x) - x). Separable: column sums first, then sums of neighbouring
// columns.
template <class N>
static void pool_row(const typename N::Item* x, int row, int height, int width, int channels, int reach,
                     const float* factor, float scale, typename N::Item* y) {
    const long line = (long)width * channels;
    const int first = std::max(row - reach, 0), last = std::min(row + reach, height - 1);
    float* columns = scratch<float>(0, line);
    for (long i = 0; i < line; i += LANES) {
        const int left = (int)std::min<long>(LANES, line - i);
        Vec sum = load_partial<N>(x + first * line + i, left);
        for (int r = first + 1; r <= last; r++) sum += load_partial<N>(x + r * line + i, left);
        store(columns + i, sum);
    }
    for (int cell = 0; cell < width; cell++) {
        const int from = std::max(cell - reach, 0), to = std::min(cell + reach, width - 1);
        const float share = 1.0f / ((last - first + 1) * (to - from + 1));
        const long at = row * line + (long)cell * channels;
        for (int c = 0; c < channels; c += LANES) {
            Vec sum = load(columns + (long)from * channels + c);
            for (int i = from + 1; i <= to; i++) sum += load(columns + (long)i * channels + c);
            const Vec own = load_partial<N>(x + at + c, channels - c);
            store_partial<N>(y + at + c, own + load(factor + c) * scale * (sum * share - own), channels - c);
        }
    }
}

// Arguments of `pool`.
struct PoolArgs {
    const void* x;  // (batch, height, width, channels)
    int batch, height, width, channels;
    int reach;            // cells on each side
    const float* factor;  // (channels), padded to whole vectors
    float eps;
    void* y;  // as x
    int threads;
};

// y = x + gamma (pool(norm(x)) - norm(x)). The shift of the norm is constant over positions, so it cancels; its scale
// is a factor per image and one per channel. `factor` is the latter times gamma.
template <class N>
static void pool(const PoolArgs& a) {
    typedef typename N::Item Item;
    const Item* x = (const Item*)a.x;
    Item* y = (Item*)a.y;
    const long size = (long)a.height * a.width * a.channels;
    const std::vector<NormStats> stats = norm_stats<N>(x, a.batch, size, a.eps, a.threads);
#pragma omp parallel for num_threads(a.threads)
    for (int i = 0; i < a.batch * a.height; i++) {
        const int image = i / a.height;
        pool_row<N>(x + image * size, i % a.height, a.height, a.width, a.channels, a.reach, a.factor,
                    stats[image].scale, y + image * size);
    }
}

// y = x + gelu(norm(x) W1 + b1) W2 + b2, with a norm over the whole image; its scale and shift per channel are folded
// into W1 and b1. In blocks of rows, so that hidden activations stay in the cache.
template <class N, class X = typename N::Residual>
static void image_mlp(const typename X::Item* x, int batch, int tokens, float eps, const LinearWeights<N>& one,
                      const LinearWeights<N>& two, typename X::Item* y, int threads) {
    typedef typename N::Item Item;
    const int channels = one.inputs;
    const std::vector<NormStats> stats = norm_stats<X>(x, batch, (long)tokens * channels, eps, threads);
    parallel_rows((long)batch * tokens, one.outputs * sizeof(Item), threads, [&](long start, int count) {
        const typename X::Item* from = x + start * channels;
        Item* fresh = scratch<Item>(5, (size_t)count * channels);
        for (int r = 0; r < count; r++)
            normalize_row<X, N>(from + (long)r * channels, channels, stats[(start + r) / tokens],
                                fresh + (long)r * channels);
        mlp_rows<N>(GELU, one, two, fresh, count, NO_NORM, NO_NORM, from, y + start * channels);
    });
}

// Arguments of `image_mlp`.
struct ImageMlpArgs {
    const void* x;  // (batch, tokens, inputs)
    int batch, tokens;
    float eps;
    WeightsArgs first, second;
    void* y;  // as x
    int threads;
};

template <class N>
static void image_mlp(const ImageMlpArgs& a) {
    typedef typename N::Residual X;
    image_mlp<N>((const typename X::Item*)a.x, a.batch, a.tokens, a.eps, LinearWeights<N>::of(a.first),
                 LinearWeights<N>::of(a.second), (typename X::Item*)a.y, a.threads);
}

extern "C" {
SIZE_OF(PoolArgs)
SIZE_OF(ImageMlpArgs)

#define FOR(name, N)                                                      \
    void vitrail_pool_##name(const PoolArgs& a) { pool<N::Residual>(a); } \
    void vitrail_image_mlp_##name(const ImageMlpArgs& a) { image_mlp<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
