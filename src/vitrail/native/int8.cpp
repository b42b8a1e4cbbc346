// What native/int8.py calls: layers whose products are of bytes, between tokens in single precision or bfloat16.

#include "int8.h"

template <class N>
static void finish_bytes(int finish, typename N::Item* y, int stride, const typename N::Item* add, const uint8_t* rows,
                         int depth, int count, const Reading* readings, const Outputs& outputs, int first, int last) {
    const int all = outputs.count;
    if (finish == GELU) {
        byte_product(rows, depth, count, readings, outputs, first, last,
                     [&](int r, int c, Lanes x) { put<N>(y + (size_t)r * stride + c, N::gelu(x), all - c); });
    } else if (finish == ADD) {
        byte_product(rows, depth, count, readings, outputs, first, last, [&](int r, int c, Lanes x) {
            put<N>(y + (size_t)r * stride + c, x + get<N>(add + (size_t)r * stride + c, all - c), all - c);
        });
    } else {
        byte_product(rows, depth, count, readings, outputs, first, last,
                     [&](int r, int c, Lanes x) { put<N>(y + (size_t)r * stride + c, x, all - c); });
    }
}

template <class N>
static const uint8_t* quantise_rows(const typename N::Item* x, int count, int depth, bool normed, float eps,
                                    uint8_t* bytes, Reading* readings) {
    const int wide = round_up(depth, Bytes::STEP);
    for (int r = 0; r < count; r++)
        readings[r] = quantise<N>(x + (size_t)r * depth, depth, normed, eps, bytes + (size_t)r * wide);
    return bytes;
}

// y = finish(norm(x) W + b). Small x is shared out by outputs, so that no thread waits for another's weights.
template <class N>
static void linear(const void* x_, long rows, int depth, const Outputs outputs, void* y_, const void* add_, int finish,
                   int normed, float eps, int threads) {
    typedef typename N::Item Item;
    const int all = panels(outputs.count), wide = round_up(depth, Bytes::STEP);
    int chunk = rows_at_a_time(rows, depth * sizeof(Item), threads), groups = 1;
    if (rows < 64L * threads && all > 1) {
        chunk = round_up((int)rows, ROWS);
        groups = std::min(all, threads * 2);
    }
    const int chunks = (int)((rows + chunk - 1) / chunk);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < chunks * groups; item++) {
        const long start = (long)(item / groups) * chunk;
        const int group = item % groups, count = (int)std::min<long>(chunk, rows - start);
        Reading* readings = scratch<Reading>(0, chunk);
        const uint8_t* bytes = quantise_rows<N>((const Item*)x_ + start * depth, count, depth, normed, eps,
                                                scratch<uint8_t>(0, (size_t)chunk * wide), readings);
        finish_bytes<N>(finish, (Item*)y_ + start * outputs.count, outputs.count,
                        add_ == nullptr ? nullptr : (const Item*)add_ + start * outputs.count, bytes, wide, count,
                        readings, outputs, all * group / groups, all * (group + 1) / groups);
    }
}

// y = add + gelu(norm(x) W1 + b1) W2 + b2, some rows at a time, so that the hidden part never leaves the cache.
template <class N>
static void mlp(const void* x_, long rows, int depth, const Outputs hidden, const Outputs outputs, void* y_,
                const void* add_, int normed, float eps, int threads) {
    typedef typename N::Item Item;
    const int wide = round_up(std::max(depth, hidden.count), Bytes::STEP);
    const int chunk = rows_at_a_time(rows, (size_t)hidden.count * sizeof(Item), threads);
    const int chunks = (int)((rows + chunk - 1) / chunk);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < chunks; item++) {
        const long start = (long)item * chunk;
        const int count = (int)std::min<long>(chunk, rows - start);
        Reading* readings = scratch<Reading>(0, chunk);
        uint8_t* bytes = scratch<uint8_t>(0, (size_t)chunk * wide);
        Item* between = scratch<Item>(6, (size_t)chunk * hidden.count);
        quantise_rows<N>((const Item*)x_ + start * depth, count, depth, normed, eps, bytes, readings);
        finish_bytes<N>(GELU, between, hidden.count, nullptr, bytes, round_up(depth, Bytes::STEP), count, readings,
                        hidden, 0, panels(hidden.count));
        quantise_rows<N>(between, count, hidden.count, false, 0, bytes, readings);
        finish_bytes<N>(add_ == nullptr ? PLAIN : ADD, (Item*)y_ + start * outputs.count, outputs.count,
                        add_ == nullptr ? nullptr : (const Item*)add_ + start * outputs.count, bytes,
                        round_up(hidden.count, Bytes::STEP), count, readings, outputs, 0, panels(outputs.count));
    }
}

extern "C" {
int vitrail_has_bytes() {
#if defined(MULTIPLY_BYTES)
    return 1;
#else
    return 0;
#endif
}

#define FOR(name, N)                                                                                                   \
    void vitrail_linear_##name(const void* x, long rows, int depth, WEIGHTS(w), void* y, const void* add, int finish,  \
                               int normed, float eps, int threads) {                                                   \
        linear<N>(x, rows, depth, HELD(w), y, add, finish, normed, eps, threads);                                      \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, WEIGHTS(first), WEIGHTS(second), void* y,             \
                            const void* add, int normed, float eps, int threads) {                                     \
        mlp<N>(x, rows, depth, HELD(first), HELD(second), y, add, normed, eps, threads);                               \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
