// What Python calls, on plain pointers: each function for single precision and, where the machine has it, for bfloat16.

#include "attention.h"

enum Finish { PLAIN = 0, GELU = 1, ADD = 2 };

// How many rows a thread takes at a time: a whole number of tiles, in even shares, and small enough for its cache.
static int rows_at_a_time(long rows, size_t bytes_of_row, int threads) {
    const long fitting = std::max<long>(ROWS, (512 << 10) / (long)bytes_of_row);
    const long shares = std::max<long>(1, (rows + fitting * threads - 1) / (fitting * threads)) * threads;
    return round_up((int)((rows + shares - 1) / shares), ROWS);
}

template <class N>
static void finish_rows(int finish, typename N::Item* y, long ldy, const float* bias, const typename N::Item* add,
                        long ldadd, int outputs, const typename N::Item* rows, long stride, int count,
                        const typename N::Word* packed, int depth, int first, int last) {
    auto biased = [&](int c, Lanes sum) { return bias == nullptr ? sum : sum + load(bias + c); };
    if (finish == GELU) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, gelu(biased(c, sum)), outputs - c);
        });
    } else if (finish == ADD) {
        product<N>(rows, stride, count, packed, depth, outputs, first, last, [&](int r, int c, Lanes sum) {
            put<N>(y + r * ldy + c, biased(c, sum) + get<N>(add + r * ldadd + c, outputs - c), outputs - c);
        });
    } else {
        product<N>(rows, stride, count, packed, depth, outputs, first, last,
                   [&](int r, int c, Lanes sum) { put<N>(y + r * ldy + c, biased(c, sum), outputs - c); });
    }
}

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
            normalise<N>(from, depth, count, depth, eps, fresh);
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
            normalise<N>(from, depth, count, depth, eps, fresh);
            from = fresh;
        }
        finish_rows<N>(GELU, between, hidden, bias1, nullptr, 0, hidden, from, depth, count,
                       (const typename N::Word*)first_, depth, 0, panels(hidden));
        finish_rows<N>(add == nullptr ? PLAIN : ADD, y + start * outputs, outputs, bias2,
                       add == nullptr ? nullptr : add + start * outputs, outputs, outputs, between, hidden, count,
                       (const typename N::Word*)second_, hidden, 0, panels(outputs));
    }
}

// Attention within groups of tokens. qkv is (batch, tokens, 3, heads, width), y (batch, tokens, heads, width).
// slots (groups, count) says which token sits where; -1 is padding, which reads `padding` (3, heads, width).
// kinds (groups) picks the bias of a group out of bias (kinds, heads, count, round_up(count, LANES)), or both are null.
template <class N>
static void groups_attend(const void* qkv_, int batch, int tokens, int heads, int width, const int32_t* slots,
                          int groups, int count, const void* padding_, const int32_t* kinds, const float* bias, void* y_,
                          int threads) {
    typedef typename N::Item Item;
    const Item* padding = (const Item*)padding_;
    const long row_in = 3L * heads * width, row_out = (long)heads * width;
    const size_t table = (size_t)count * round_up(count, LANES);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (long item = 0; item < (long)batch * groups * heads; item++) {
        const int head = item % heads, group = item / heads % groups;
        const long image = item / heads / groups;
        const Item* qkv = (const Item*)qkv_ + image * tokens * row_in;
        Item* y = (Item*)y_ + image * tokens * row_out;
        const int32_t* seats = slots + (size_t)group * count;
        const float* add = bias == nullptr ? nullptr : bias + ((size_t)kinds[group] * heads + head) * table;
        attend<N>(
            count, width,
            [&](int part, int j) {
                const Item* token = seats[j] < 0 ? padding : qkv + seats[j] * row_in;
                return token + ((long)part * heads + head) * width;
            },
            add, [&](int j) -> Item* { return seats[j] < 0 ? nullptr : y + seats[j] * row_out + (long)head * width; });
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
    }                                                                                                                  \
    void vitrail_attend_##name(const void* qkv, int batch, int tokens, int heads, int width, const int32_t* slots,     \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               void* y, int threads) {                                                                 \
        groups_attend<N>(qkv, batch, tokens, heads, width, slots, groups, count, padding, kinds, bias, y, threads);    \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
