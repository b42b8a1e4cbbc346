// What native/int8.py calls: layers whose products are of bytes, between tokens in single precision or bfloat16.

#include "int8.h"

// y = finish(norm(x) W + b) of some rows; without factors there is no norm.
template <class N>
static void layer(int finish, const typename N::Item* x, int count, int depth, const float* factors, float eps,
                  const Outputs& outputs, int first, int last, const typename N::Item* add, typename N::Item* y) {
    const int wide = round_up(depth, Bytes::STEP), all = outputs.count;
    uint8_t* bytes = scratch<uint8_t>(0, (size_t)count * wide);
    Reading* readings = scratch<Reading>(0, count);
    for (int r = 0; r < count; r++) {
        const typename N::Item* row = x + (size_t)r * depth;
        uint8_t* to = bytes + (size_t)r * wide;
        readings[r] = factors == nullptr ? quantise<N>(row, depth, to) : quantise_normed<N>(row, depth, factors, eps, to);
    }
    finish_with<N>(finish, y, all, add, all, all, [&](auto&& put) {
        byte_product(bytes, wide, count, readings, outputs, first, last, put);
    });
}

// y = finish(norm(x) W + b)
template <class N>
static void linear(const void* x, long rows, int depth, const Outputs outputs, void* y, const void* add, int finish,
                   const float* factors, float eps, int threads) {
    typedef typename N::Item Item;
    share_layer(rows, depth * sizeof(Item), outputs.count, threads, [&](long start, int count, int first, int last) {
        layer<N>(finish, (const Item*)x + start * depth, count, depth, factors, eps, outputs, first, last,
                 moved((const Item*)add, start * outputs.count), (Item*)y + start * outputs.count);
    });
}

// y = add + gelu(norm(x) W1 + b1) W2 + b2, some rows at a time, so that the hidden part never leaves the cache.
template <class N>
static void mlp(const void* x, long rows, int depth, const Outputs hidden, const Outputs outputs, void* y,
                const void* add, const float* factors, float eps, int threads) {
    typedef typename N::Item Item;
    share_rows(rows, (size_t)hidden.count * sizeof(Item), threads, [&](long start, int count) {
        Item* between = scratch<Item>(6, (size_t)count * hidden.count);
        layer<N>(GELU, (const Item*)x + start * depth, count, depth, factors, eps, hidden, 0, panels(hidden.count),
                 nullptr, between);
        layer<N>(add == nullptr ? PLAIN : ADD, between, count, hidden.count, nullptr, 0, outputs, 0,
                 panels(outputs.count), moved((const Item*)add, start * outputs.count),
                 (Item*)y + start * outputs.count);
    });
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
                               const float* factors, float eps, int threads) {                                         \
        linear<N>(x, rows, depth, HELD(w), y, add, finish, factors, eps, threads);                                     \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, WEIGHTS(first), WEIGHTS(second), void* y,             \
                            const void* add, const float* factors, float eps, int threads) {                           \
        mlp<N>(x, rows, depth, HELD(first), HELD(second), y, add, factors, eps, threads);                              \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
