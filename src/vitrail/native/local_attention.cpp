// Exports for native/local_attention.py: each cell attends to the K x K cells around it; cells off the map are zeros.
//
// The lanes of a vector are neighbouring queries of one row. Keys and values are copied into planes, channel by
// channel, with zeros around the map, so the keys of LANES queries at one offset are LANES consecutive numbers: no key
// is masked and none is copied per query. Narrow maps of several images stand side by side in a plane, with zeros
// between.

#include "arguments.h"
#include "dtypes.h"
#include "norms.h"
#include "packing.h"

constexpr int QUERY_ROWS = LANES == 16 ? 2 : 1;  // rows of queries that share the loads of keys and values
constexpr int CHANNELS = 8;                      // channels of the output in registers

// Arguments of `local_attention`.
struct LocalAttentionArgs {
    const void* qkv;  // (batch, height, width, 3, heads, head_dim)
    int batch, height, width, heads, head_dim;
    int kernel;            // odd side of a neighborhood: 3, 5 or 7
    const float* rows;     // (heads, kernel, first), met by the first channels of a query
    const float* columns;  // (heads, kernel, head_dim - first), met by the others
    int first;
    int abreast;  // images side by side in a plane
    int band;     // rows of queries of a task
    void* y;      // (batch, height, width, heads, head_dim)
    int threads;
};

// Maps of `images` images side by side, with `margin` columns of zeros around each.
struct Plane {
    int images, width, margin;

    int places() const { return images * (width + margin) - margin; }  // queries of a row, with those between images
    int line() const { return round_up(places(), LANES) + round_up(2 * margin, LANES); }

    // Cell of each place of row 0, counted from the first image, for `count` places from `start` on; -1 is a zero.
    void cells(int start, int count, long image_size, long* to) const {
        for (int u = 0; u < count; u++) {
            const int place = start + u, image = place / (width + margin), column = place % (width + margin);
            to[u] = place >= 0 && place < places() && column < width ? image * image_size + column : -1;
        }
    }
};

// Not inlined: transposes are long, and each neighborhood has its own callers.
#define COMPILED_ONCE __attribute__((noinline))

// Store LANES rows of `count` numbers as `count` lines of LANES numbers; missing rows (null) are zeros.
template <class X>
static COMPILED_ONCE void to_lines(const typename X::Item* const* rows, int count, float* to, long stride) {
    for (int c = 0; c < count; c += LANES) {
        VecU32 square[LANES];
        for (int i = 0; i < LANES; i++)
            square[i] = rows[i] == nullptr ? VecU32{} : (VecU32)load_partial<X>(rows[i] + c, count - c);
        transpose(square);
        for (int i = 0; i < std::min(LANES, count - c); i++) store(to + (c + i) * stride, (Vec)square[i]);
    }
}

// The inverse: lines of LANES numbers to the rows that are not null.
template <class X>
static COMPILED_ONCE void from_lines(const float* lines, int count, typename X::Item* const* rows) {
    for (int c = 0; c < count; c += LANES) {
        VecU32 square[LANES];
        for (int i = 0; i < LANES; i++) square[i] = c + i < count ? (VecU32)load(lines + (c + i) * LANES) : VecU32{};
        transpose(square);
        for (int i = 0; i < LANES; i++)
            if (rows[i] != nullptr) store_partial<X>(rows[i] + c, (Vec)square[i], count - c);
    }
}

// A vector that stays in a register: GCC would load it again for each of its products, and unaligned loads are the
// limit.
static IN_REGISTERS Vec loaded_once(const float* at) {
    Vec x = load(at);
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#endif
    return x;
}

// Add products of R lines of queries and the keys of one row of neighborhoods: sum[r][x] += q_r k_x.
template <int K, int R>
static IN_REGISTERS void meet_row(const float* queries, long of, int head_dim, const float* keys, int line,
                                  Vec (&sum)[R][K]) {
    for (int c = 0; c < head_dim; c++) {
        Vec own[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) own[r] = load(queries + r * of + c * LANES);
#pragma GCC unroll 8
        for (int x = 0; x < K; x++) {
            const Vec key = loaded_once(keys + (long)c * line + x);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sum[r][x] += own[r] * key;
        }
    }
}

// Add the values of one row of neighborhoods, weighted, to lines FIRST up to LAST: sum[r][c] += p_r[x] v_c[x].
template <int K, int FIRST, int LAST, int R>
static IN_REGISTERS void mix_row(const float* const* probs, const float* values, int line, Vec (&sum)[R][CHANNELS]) {
#pragma GCC unroll 8
    for (int x = 0; x < K; x++) {
        Vec p[R];
#pragma GCC unroll 8
        for (int r = FIRST; r < LAST; r++) p[r] = load(probs[r] + x * LANES);
#pragma GCC unroll 8
        for (int c = 0; c < CHANNELS; c++) {
            const Vec value = loaded_once(values + (long)c * line + x);
#pragma GCC unroll 8
            for (int r = FIRST; r < LAST; r++) sum[r][c] += p[r] * value;
        }
    }
}

// Scores of queries with the K vectors of a table of offsets, (K, count): `to` gets K lines.
template <int K>
static inline void meet_table(const float* queries, const float* table, int count, float* to) {
    Vec sum[K];
    for (auto& s : sum) s = Vec{};
    for (int c = 0; c < count; c++) {
        const Vec own = load(queries + c * LANES);
#pragma GCC unroll 8
        for (int x = 0; x < K; x++) sum[x] += own * table[x * count + c];
    }
    for (int x = 0; x < K; x++) store(to + x * LANES, sum[x]);
}

// Planes of keys and values, and tables of offsets, of one head.
struct LocalHead {
    const float *keys, *values;  // (rows, channels, line)
    long row;                    // numbers of a row of the planes
    int line, head_dim, first;
    const float *rows, *columns;
};

// Attention of R rows of LANES queries, `of` numbers apart, whose neighborhoods start at row `top` and column `left` of
// the planes. Each row of `out`, `to` numbers apart, gets the lines of the channels, rounded up to CHANNELS.
template <class N, int K, int R>
static inline void attend_lanes(const LocalHead& head, const float* queries, long of, int top, int left, float* out,
                                long to) {
    typedef std::integral_constant<int, 0> Zero;
    typedef std::integral_constant<int, 1> One;
    typedef std::integral_constant<int, R> All;
    const int d = head.head_dim;
    float* scores = scratch<float>(2, (size_t)(R * K * K + 2 * R * K) * LANES);
    float* of_rows = scores + (size_t)R * K * K * LANES;
    float* of_columns = of_rows + R * K * LANES;
    for (int r = 0; r < R; r++) {
        const float* own = queries + r * of;
        meet_table<K>(own, head.rows, head.first, of_rows + r * K * LANES);
        meet_table<K>(own + (long)head.first * LANES, head.columns, d - head.first, of_columns + r * K * LANES);
    }
    // Row j of keys meets the query rows from `from` on, at their row j - from of neighbours.
    auto score = [&](auto count, int from, int j) {
        constexpr int S = decltype(count)::value;
        Vec sum[S][K];
#pragma GCC unroll 8
        for (int r = 0; r < S; r++) {
            const Vec row = load(of_rows + ((from + r) * K + j - from - r) * LANES);
#pragma GCC unroll 8
            for (int x = 0; x < K; x++) sum[r][x] = row + load(of_columns + ((from + r) * K + x) * LANES);
        }
        meet_row<K, S>(queries + from * of, of, d, head.keys + (top + j) * head.row + left, head.line, sum);
#pragma GCC unroll 8
        for (int r = 0; r < S; r++)
#pragma GCC unroll 8
            for (int x = 0; x < K; x++) store(scores + (((from + r) * K + j - from - r) * K + x) * LANES, sum[r][x]);
    };
    if (R == 2) score(One(), 0, 0);
    for (int j = R - 1; j < K; j++) score(All(), 0, j);
    if (R == 2) score(One(), 1, K);
    Vec whole[R];
    for (int r = 0; r < R; r++) {
        float* own = scores + (size_t)r * K * K * LANES;
        Vec most = load(own), sum = Vec{};
        for (int i = 1; i < K * K; i++) most = max(most, load(own + i * LANES));
        for (int i = 0; i < K * K; i++) {
            const Vec e = N::exponential(load(own + i * LANES) - most);
            sum += e;
            store(own + i * LANES, e);
        }
        whole[r] = 1.0f / sum;
    }
    for (int c = 0; c < d; c += CHANNELS) {
        Vec sum[R][CHANNELS];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int i = 0; i < CHANNELS; i++) sum[r][i] = Vec{};
        const float* values = head.values + top * head.row + (long)c * head.line + left;
        auto mix = [&](auto first, auto last, int j) {
            const float* probs[R];
            for (int r = 0; r < R; r++) probs[r] = scores + (size_t)(r * K + j - r) * K * LANES;
            mix_row<K, decltype(first)::value, decltype(last)::value>(probs, values + j * head.row, head.line, sum);
        };
        if (R == 2) mix(Zero(), One(), 0);
        for (int j = R - 1; j < K; j++) mix(Zero(), All(), j);
        if (R == 2) mix(One(), All(), K);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int i = 0; i < CHANNELS; i++) store(out + r * to + (c + i) * LANES, sum[r][i] * whole[r]);
    }
}

// Attention of some heads: rows `from` to `to` of the images from `image` on.
template <class N, int K, class X = typename N::Residual>
static void attend_band(const LocalAttentionArgs& a, int image, int head, int heads, int from, int to) {
    typedef typename X::Item Item;
    constexpr int MARGIN = K / 2;
    const int d = a.head_dim, channels = heads * d, dim = a.heads * d, rows = to - from + 2 * MARGIN;
    const Plane plane = {std::min(a.abreast, a.batch - image), a.width, MARGIN};
    const int line = plane.line();
    const size_t size = (size_t)rows * channels * line, spare = (size_t)CHANNELS * line;
    float *keys = scratch<float>(0, size + spare), *values = scratch<float>(1, size + spare);
    float* queries = scratch<float>(3, (size_t)QUERY_ROWS * channels * LANES);
    float* out = scratch<float>(4, (size_t)QUERY_ROWS * (channels + CHANNELS) * LANES);
    long* cells = scratch<long>(0, 2 * line);  // of the places of keys and of queries
    long* own = cells + line;
    plane.cells(-MARGIN, line, (long)a.height * a.width, cells);
    plane.cells(0, line, (long)a.height * a.width, own);
    const long first = (long)image * a.height * a.width;
    const Item* qkv = (const Item*)a.qkv + first * 3 * dim + head * d;
    Item* result = (Item*)a.y + first * dim + head * d;
    auto copy = [&](const long* of, int y, int part, float* to, long stride) {  // LANES cells of row y
        const Item* at[LANES];
        for (int i = 0; i < LANES; i++)
            at[i] = of[i] < 0 ? nullptr : qkv + (of[i] + (long)y * a.width) * 3 * dim + part * dim;
        to_lines<X>(at, channels, to, stride);
    };
    for (int y = 0; y < rows; y++) {
        const size_t row = (size_t)y * channels * line;
        const int on = from + y - MARGIN;
        if (on < 0 || on >= a.height) {
            std::fill(keys + row, keys + row + channels * line, 0.0f);
            std::fill(values + row, values + row + channels * line, 0.0f);
            continue;
        }
        for (int u = 0; u < line; u += LANES) {
            copy(cells + u, on, 1, keys + row + u, line);
            copy(cells + u, on, 2, values + row + u, line);
        }
    }
    auto attend = [&](auto count, int y, int u) {
        constexpr int R = decltype(count)::value;
        for (int r = 0; r < R; r++) copy(own + u, y + r, 0, queries + (long)r * channels * LANES, LANES);
        for (int h = 0; h < heads; h++) {
            const LocalHead one = {keys + (long)h * d * line,
                                   values + (long)h * d * line,
                                   (long)channels * line,
                                   line,
                                   d,
                                   a.first,
                                   a.rows + (long)(head + h) * K * a.first,
                                   a.columns + (long)(head + h) * K * (d - a.first)};
            attend_lanes<N, K, R>(one, queries + (long)h * d * LANES, (long)channels * LANES, y - from, u,
                                  out + (long)h * d * LANES, (long)(channels + CHANNELS) * LANES);
        }
        for (int r = 0; r < R; r++) {
            Item* put[LANES];
            for (int i = 0; i < LANES; i++)
                put[i] = own[u + i] < 0 ? nullptr : result + (own[u + i] + (long)(y + r) * a.width) * dim;
            from_lines<X>(out + (long)r * (channels + CHANNELS) * LANES, channels, put);
        }
    };
    int y = from;
    for (; y + QUERY_ROWS <= to; y += QUERY_ROWS)
        for (int u = 0; u < plane.places(); u += LANES) attend(std::integral_constant<int, QUERY_ROWS>(), y, u);
    for (; y < to; y++)
        for (int u = 0; u < plane.places(); u += LANES) attend(std::integral_constant<int, 1>(), y, u);
}

// y_i = softmax_j(q_i k_j + q_i (row of j - i, column of j - i)) v_j, j in the K x K cells around i.
template <class N>
static void local_attention(const LocalAttentionArgs& a) {
    const int groups = (a.batch + a.abreast - 1) / a.abreast, bands = (a.height + a.band - 1) / a.band;
    const int together = std::max(1, LANES / a.head_dim), parts = (a.heads + together - 1) / together;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)groups * bands * parts; item++) {
        const int head = item % parts * together, heads = std::min(together, a.heads - head);
        const int from = item / parts % bands * a.band, image = item / parts / bands * a.abreast;
        const int to = std::min(a.height, from + a.band);
        switch (a.kernel) {
            case 3: attend_band<N, 3>(a, image, head, heads, from, to); break;
            case 5: attend_band<N, 5>(a, image, head, heads, from, to); break;
            default: attend_band<N, 7>(a, image, head, heads, from, to);
        }
    }
}

extern "C" {
SIZE_OF(LocalAttentionArgs)

#define FOR(name, N) \
    void vitrail_local_attention_##name(const LocalAttentionArgs& a) { local_attention<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
