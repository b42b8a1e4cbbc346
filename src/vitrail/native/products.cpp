// What native/products.py calls: products with packed weights, for single precision and, where it is there, bfloat16.

#include "layers.h"

// y = finish(norm(x) W + b). Small x is shared out by outputs, so that no thread waits for another's weights.
template <class N>
static void linear(const void* x_, long rows, int depth, const void* packed_, const float* bias, int outputs, void* y_,
                   const void* add_, int finish, int normed, float eps, int threads) {
    typedef typename N::Item Item;
    const Item* x = (const Item*)x_;
    const Item* add = (const Item*)add_;
    const typename N::Word* packed = (const typename N::Word*)packed_;
    Item* y = (Item*)y_;
    const int all = panels(outputs);
    int chunk = rows_at_a_time(rows, depth * sizeof(Item), threads);
    int groups = 1;
    if (rows < 64L * threads && all > 1) {
        chunk = round_up((int)rows, ROWS);
        groups = std::min(all, threads * 2);
    }
    const int chunks = (int)((rows + chunk - 1) / chunk);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < chunks * groups; item++) {
        const long start = (long)(item / groups) * chunk;
        const int group = item % groups, count = (int)std::min<long>(chunk, rows - start);
        const Item* from = x + start * depth;
        if (normed) {
            Item* fresh = scratch<Item>(5, (size_t)chunk * depth);
            normalise_rows<N>(from, count, depth, eps, fresh);
            from = fresh;
        }
        finish_rows<N>(finish, y + start * outputs, outputs, bias, add == nullptr ? nullptr : add + start * outputs,
                       outputs, outputs, from, depth, count, packed, depth, all * group / groups,
                       all * (group + 1) / groups);
    }
}

// y = add + gelu(norm(x) W1 + b1) W2 + b2, some rows at a time, so that the hidden part never leaves the cache.
template <class N>
static void mlp(const void* x_, long rows, int depth, const void* first_, const float* bias1, int hidden,
                const void* second_, const float* bias2, int outputs, void* y_, const void* add_, int normed, float eps,
                int threads) {
    typedef typename N::Item Item;
    const Item* x = (const Item*)x_;
    const Item* add = (const Item*)add_;
    Item* y = (Item*)y_;
    const int chunk = rows_at_a_time(rows, (size_t)hidden * sizeof(Item), threads);
    const int chunks = (int)((rows + chunk - 1) / chunk);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < chunks; item++) {
        const long start = (long)item * chunk;
        const int count = (int)std::min<long>(chunk, rows - start);
        const Item* from = x + start * depth;
        Item* between = scratch<Item>(6, (size_t)chunk * hidden);
        if (normed) {
            Item* fresh = scratch<Item>(5, (size_t)chunk * depth);
            normalise_rows<N>(from, count, depth, eps, fresh);
            from = fresh;
        }
        finish_rows<N>(GELU, between, hidden, bias1, nullptr, 0, hidden, from, depth, count,
                       (const typename N::Word*)first_, depth, 0, panels(hidden));
        finish_rows<N>(add == nullptr ? PLAIN : ADD, y + start * outputs, outputs, bias2,
                       add == nullptr ? nullptr : add + start * outputs, outputs, outputs, between, hidden, count,
                       (const typename N::Word*)second_, hidden, 0, panels(outputs));
    }
}

extern "C" {
int vitrail_panel() { return PANEL; }
int vitrail_lanes() { return LANES; }
int vitrail_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

#define FOR(name, N)                                                                                                   \
    void vitrail_linear_##name(const void* x, long rows, int depth, const void* packed, const float* bias, int outputs, \
                               void* y, const void* add, int finish, int normed, float eps, int threads) {             \
        linear<N>(x, rows, depth, packed, bias, outputs, y, add, finish, normed, eps, threads);                        \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, const void* first, const float* bias1, int hidden,    \
                            const void* second, const float* bias2, int outputs, void* y, const void* add, int normed, \
                            float eps, int threads) {                                                                  \
        mlp<N>(x, rows, depth, first, bias1, hidden, second, bias2, outputs, y, add, normed, eps, threads);            \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
