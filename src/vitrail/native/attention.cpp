// What native/attention.py calls: attention of tokens that stay where they are.

#include "attention.h"
#include "layers.h"

// What is added to the scores of `count` keys: a bias, or nothing but what forbids the padding behind the last key.
struct Border {
    const int count, keys;
    std::vector<float> plain;
    explicit Border(int count) : count(count), keys(round_up(count, LANES)), plain(keys, 0.0f) {
        std::fill(plain.begin() + count, plain.end(), -1e30f);
    }
    Addend addend(const float* bias, const int32_t* kinds, int group, int heads, int head) const {
        if (bias == nullptr) return {plain.data(), 0};
        return {bias + ((size_t)kinds[group] * heads + head) * count * keys, keys};
    }
};

// Attention within groups of tokens. qkv is (batch, tokens, 3, heads, width), y (batch, tokens, heads, width).
// slots (groups, count) says which token sits where; -1 is padding, which reads `padding` (3, heads, width).
// kinds (groups) picks the bias of a group out of bias (kinds, heads, count, round_up(count, LANES)), whose last numbers,
// where no key is, are -1e30; or both are null.
template <class N>
static void groups_attend(const void* qkv_, int batch, int tokens, int heads, int width, const int32_t* slots,
                          int groups, int count, const void* padding_, const int32_t* kinds, const float* bias, void* y_,
                          int threads) {
    typedef typename N::Item Item;
    const Item* padding = (const Item*)padding_;
    const long row_in = 3L * heads * width, row_out = (long)heads * width;
    const Border border(count);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (long item = 0; item < (long)batch * groups * heads; item++) {
        const int head = item % heads, group = item / heads % groups;
        const long image = item / heads / groups;
        const Item* qkv = (const Item*)qkv_ + image * tokens * row_in;
        Item* y = (Item*)y_ + image * tokens * row_out;
        const int32_t* seats = slots + (size_t)group * count;
        const Addend add = border.addend(bias, kinds, group, heads, head);
        attend<N>(
            count, width,
            [&](int part, int j) {
                const Item* token = seats[j] < 0 ? padding : qkv + seats[j] * row_in;
                return token + ((long)part * heads + head) * width;
            },
            add, [&](int j) -> Item* { return seats[j] < 0 ? nullptr : y + seats[j] * row_out + (long)head * width; });
    }
}

// y = x + attention(norm(x) Wqkv + b) Wproj + b within groups, some groups at a time: only x and y leave the cache.
// Padding reads `padding` (3, heads, width). Each token sits in one place, so y may be x.
template <class N>
static void branch(const void* x_, int batch, int tokens, int heads, int width, const int32_t* slots, int groups,
                   int count, const void* padding, const int32_t* kinds, const float* bias, const void* qkv_,
                   const float* qkv_bias, const void* proj_, const float* proj_bias, float eps, void* y_, int threads) {
    typedef typename N::Item Item;
    const int dim = heads * width, all = batch * groups;
    const Border border(count);
    const int fitting = std::max(1, (192 << 10) / (int)(count * dim * sizeof(Item)));
    const int shares = (all + fitting * threads - 1) / (fitting * threads) * threads;
    const int run = (all + shares - 1) / shares;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int start = 0; start < all; start += run) {
        const int some = std::min(run, all - start), rows = some * count;
        Item* fresh = scratch<Item>(5, (size_t)run * count * dim);
        Item* qkv = scratch<Item>(6, (size_t)run * count * 3 * dim);
        auto seat = [&](int r) -> long {
            const int group = start + r / count;
            const int32_t token = slots[(size_t)(group % groups) * count + r % count];
            return token < 0 ? -1 : ((long)(group / groups) * tokens + token) * dim;
        };
        std::vector<long> seats(rows);
        for (int r = 0; r < rows; r++) {
            seats[r] = seat(r);
            const Item* from = seats[r] < 0 ? nothing<Item>(dim) : (const Item*)x_ + seats[r];
            normalise<N>(from, dim, eps, fresh + (size_t)r * dim);
        }
        finish_rows<N>(PLAIN, qkv, 3 * dim, qkv_bias, nullptr, 0, 3 * dim, fresh, dim, rows,
                       (const typename N::Word*)qkv_, dim, 0, panels(3 * dim));
        for (int r = 0; r < rows; r++)
            if (seats[r] < 0) std::memcpy(qkv + (size_t)r * 3 * dim, padding, 3 * dim * sizeof(Item));
        for (int g = 0; g < some; g++) {
            const Item* from = qkv + (size_t)g * count * 3 * dim;
            Item* to = fresh + (size_t)g * count * dim;  // what was normalised is not needed any more
            for (int head = 0; head < heads; head++) {
                const Addend add = border.addend(bias, kinds, (start + g) % groups, heads, head);
                attend<N>(
                    count, width,
                    [&](int part, int j) { return from + ((long)(j * 3 + part) * heads + head) * width; }, add,
                    [&](int j) { return to + (long)(j * heads + head) * width; });
            }
        }
        product<N>(fresh, dim, rows, (const typename N::Word*)proj_, dim, dim, 0, panels(dim),
                   [&](int r, int c, Lanes sum) {
                       if (seats[r] < 0) return;
                       const Item* x = (const Item*)x_ + seats[r] + c;
                       put<N>((Item*)y_ + seats[r] + c, sum + load(proj_bias + c) + get<N>(x, dim - c), dim - c);
                   });
    }
}

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_attend_##name(const void* qkv, int batch, int tokens, int heads, int width, const int32_t* slots,     \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               void* y, int threads) {                                                                 \
        groups_attend<N>(qkv, batch, tokens, heads, width, slots, groups, count, padding, kinds, bias, y, threads);    \
    }                                                                                                                  \
    void vitrail_branch_##name(const void* x, int batch, int tokens, int heads, int width, const int32_t* slots,       \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               const void* qkv, const float* qkv_bias, const void* proj, const float* proj_bias,       \
                               float eps, void* y, int threads) {                                                      \
        branch<N>(x, batch, tokens, heads, width, slots, groups, count, padding, kinds, bias, qkv, qkv_bias, proj,     \
                  proj_bias, eps, y, threads);                                                                         \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
