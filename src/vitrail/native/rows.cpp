// What native/rows.py calls. Rows are cut into chunks that do not depend on the threads, so neither do their sums.

#include "rows.h"

constexpr long ROWS_OF_CHUNK = 512;

static inline long chunks_of(long rows) { return (rows + ROWS_OF_CHUNK - 1) / ROWS_OF_CHUNK; }

template <class Work>
static void for_each_row(long rows, int threads, Work&& work) {
    const long chunks = chunks_of(rows);
#pragma omp parallel for num_threads(threads)
    for (long chunk = 0; chunk < chunks; chunk++)
        for (long r = chunk * ROWS_OF_CHUNK; r < std::min(rows, (chunk + 1) * ROWS_OF_CHUNK); r++) work(chunk, r);
}

// y = LayerNorm(x); what each row's norm took is written to `kept`, or read from it where `again`.
template <class X, class N>
static void norm(const void* x_, long rows, int depth, const float* weight, const float* bias, float eps, int again,
                 Standard* kept, void* y_, int threads) {
    const auto* x = (const typename X::Item*)x_;
    auto* y = (typename N::Item*)y_;
    for_each_row(rows, threads, [&](long, long r) {
        if (!again) kept[r] = standard_of<X>(x + r * depth, depth, eps);
        layer_norm<X, N>(x + r * depth, depth, kept[r], weight, bias, y + r * depth);
    });
}

template <class X, class N>
static void norm_back(const void* x_, long rows, int depth, const float* weight, const Standard* kept,
                      const void* into_y_, const void* past_, void* into_x_, float* into_weight, float* into_bias,
                      int threads) {
    const auto *x = (const typename X::Item*)x_, *past = (const typename X::Item*)past_;
    const auto* into_y = (const typename N::Item*)into_y_;
    auto* into_x = (typename X::Item*)into_x_;
    const int wide = round_up(depth, LANES);
    Sums sums(into_weight, 2 * wide, chunks_of(rows));
    for_each_row(rows, threads, [&](long chunk, long r) {
        const long at = r * depth;
        normed_back<X, N>(x + at, depth, kept[r], weight, into_y + at, past == nullptr ? nullptr : past + at,
                          into_x + at, sums.of(chunk), sums.of(chunk) + wide);
    });
    std::vector<float> both(2 * wide);
    sums.add_up(both.data(), threads);
    std::copy_n(both.data(), depth, into_weight);
    std::copy_n(both.data() + wide, depth, into_bias);
}

// y = gelu(x + bias)
template <class N>
static void gelu_rows(const void* x_, long rows, int depth, const float* bias, void* y_, int threads) {
    const auto* x = (const typename N::Item*)x_;
    auto* y = (typename N::Item*)y_;
    for_each_row(rows, threads, [&](long, long r) {
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            put<N>(y + r * depth + c, N::gelu(get<N>(x + r * depth + c, left) + get<Single>(bias + c, left)), left);
        }
    });
}

// The same again, with the gradient: `into` comes as that of y and leaves as that of x.
template <class N>
static void gelu_back(const void* x_, long rows, int depth, const float* bias, void* y_, void* into_, float* into_bias,
                      int threads) {
    const auto* x = (const typename N::Item*)x_;
    auto *y = (typename N::Item*)y_, *into = (typename N::Item*)into_;
    const int wide = round_up(depth, LANES);
    Sums sums(into_bias, wide, chunks_of(rows));
    for_each_row(rows, threads, [&](long chunk, long r) {
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const long at = r * depth + c;
            Lanes slope;
            put<N>(y + at, gelu_and_slope<N>(get<N>(x + at, left) + get<Single>(bias + c, left), &slope), left);
            const Lanes g = get<N>(into + at, left) * slope;
            put<N>(into + at, g, left);
            float* sum = sums.of(chunk) + c;
            store(sum, load(sum) + g);
        }
    });
    std::vector<float> all(wide);
    sums.add_up(all.data(), threads);
    std::copy_n(all.data(), depth, into_bias);
}

// y = past + keep * (x + bias), with a factor `keep` for each sample of `span` rows, or null.
template <class X, class N>
static void rejoin(const void* x_, long rows, int depth, const float* bias, const float* keep, long span,
                   const void* past_, void* y_, int threads) {
    const auto* x = (const typename N::Item*)x_;
    const auto* past = (const typename X::Item*)past_;
    auto* y = (typename X::Item*)y_;
    for_each_row(rows, threads, [&](long, long r) {
        const float factor = keep == nullptr ? 1.0f : keep[r / span];
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const long at = r * depth + c;
            const Lanes branch = get<N>(x + at, left) + get<Single>(bias + c, left);
            put<X>(y + at, get<X>(past + at, left) + factor * branch, left);
        }
    });
}

// The gradient of that: into_x = keep * into_y, not written where it is null; the gradient of the bias is its sum.
template <class X, class N>
static void rejoin_back(const void* into_y_, long rows, int depth, const float* keep, long span, void* into_x_,
                        float* into_bias, int threads) {
    const auto* into_y = (const typename X::Item*)into_y_;
    auto* into_x = (typename N::Item*)into_x_;
    const int wide = round_up(depth, LANES);
    Sums sums(into_bias, wide, chunks_of(rows));
    for_each_row(rows, threads, [&](long chunk, long r) {
        const float factor = keep == nullptr ? 1.0f : keep[r / span];
        for (int c = 0; c < depth; c += LANES) {
            const int left = depth - c;
            const Lanes g = factor * get<X>(into_y + r * depth + c, left);
            float* sum = sums.of(chunk) + c;
            store(sum, load(sum) + g);
            if (into_x != nullptr) put<N>(into_x + r * depth + c, g, left);
        }
    });
    std::vector<float> all(wide);
    sums.add_up(all.data(), threads);
    std::copy_n(all.data(), depth, into_bias);
}

extern "C" {
#define FOR_BOTH(name, X, N)                                                                                           \
    void vitrail_norm_##name(const void* x, long rows, int depth, const float* weight, const float* bias, float eps,   \
                             int again, Standard* kept, void* y, int threads) {                                        \
        norm<X, N>(x, rows, depth, weight, bias, eps, again, kept, y, threads);                                        \
    }                                                                                                                  \
    void vitrail_norm_back_##name(const void* x, long rows, int depth, const float* weight, const Standard* kept,      \
                                  const void* into_y, const void* past, void* into_x, float* into_weight,              \
                                  float* into_bias, int threads) {                                                     \
        norm_back<X, N>(x, rows, depth, weight, kept, into_y, past, into_x, into_weight, into_bias, threads);          \
    }                                                                                                                  \
    void vitrail_rejoin_##name(const void* x, long rows, int depth, const float* bias, const float* keep, long span,   \
                               const void* past, void* y, int threads) {                                               \
        rejoin<X, N>(x, rows, depth, bias, keep, span, past, y, threads);                                              \
    }                                                                                                                  \
    void vitrail_rejoin_back_##name(const void* into_y, long rows, int depth, const float* keep, long span,            \
                                    void* into_x, float* into_bias, int threads) {                                     \
        rejoin_back<X, N>(into_y, rows, depth, keep, span, into_x, into_bias, threads);                                \
    }

#define FOR(name, N)                                                                                                   \
    FOR_BOTH(name, N, N)                                                                                               \
    void vitrail_gelu_##name(const void* x, long rows, int depth, const float* bias, void* y, int threads) {           \
        gelu_rows<N>(x, rows, depth, bias, y, threads);                                                                \
    }                                                                                                                  \
    void vitrail_gelu_back_##name(const void* x, long rows, int depth, const float* bias, void* y, void* into,         \
                                  float* into_bias, int threads) {                                                     \
        gelu_back<N>(x, rows, depth, bias, y, into, into_bias, threads);                                               \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
FOR_BOTH(mixed, Single, Brain)  // the residual in fp32, products in bf16
#endif
}
