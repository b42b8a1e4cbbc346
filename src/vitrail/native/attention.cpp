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

// Copy a short row; memcpy takes longer to find out how.
template <class Item>
static inline void copy(const Item* from, int count, Item* to) {
    constexpr int once = sizeof(Lanes) / sizeof(Item);
    int i = 0;
    for (; i + once <= count; i += once) {
        Lanes some;
        std::memcpy(&some, from + i, sizeof(some));
        std::memcpy(to + i, &some, sizeof(some));
    }
    for (; i < count; i++) to[i] = from[i];
}

// Whether tokens lie one after the other, none of them padding.
static bool in_a_row(const int32_t* seats, int count) {
    bool so = seats[0] >= 0;
    for (int j = 1; j < count; j++) so &= seats[j] == seats[0] + j;
    return so;
}

// Attention within groups of tokens. qkv is (batch, tokens, 3, heads, width), y (batch, tokens, heads, width).
// slots (groups, count) says which token sits where; -1 is padding, which reads `padding` (3, heads, width).
// kinds (groups) picks the bias of a group out of bias (kinds, heads, count, round_up(count, LANES)), whose last numbers,
// where no key is, are -1e30; or both are null.
template <class N>
static void groups_attend(const void* qkv_, int batch, int tokens, int heads, int width, const int32_t* slots,
                          int groups, int count, const void* padding_, const int32_t* kinds, const float* bias, void* y_,
                          int threads) {
    typedef typename N::Item Item;
    const int dim = heads * width;
    const Border border(count);
    // A thread takes whole groups, or, where there are few, single heads of them.
    const int some = (long)batch * groups >= 8L * threads ? heads : 1;
    const int parts = heads / some, part = some * width;
    const long items = (long)batch * groups * parts;
    const int chunk = (int)std::max(1L, std::min(16L, items / (16 * threads)));
    auto seats_of = [=](long item) { return slots + (size_t)(item / parts % groups) * count; };
    auto tokens_of = [=](long item) {
        return (const Item*)qkv_ + item / parts / groups * tokens * 3 * dim + item % parts * part;
    };
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (long item = 0; item < items; item++) {
        const int first = item % parts * some, group = item / parts % groups;
        const int32_t* seats = seats_of(item);
        const Item* qkv = tokens_of(item);
        Item* y = (Item*)y_ + item / parts / groups * tokens * dim + first * width;
        auto mix_heads = [&](const Item* from, int wide, Item* to) {
            for (int h = 0; h < some; h++)
                attend<N>(count, width, {from + h * width, 3L * wide}, wide,
                          border.addend(bias, kinds, group, heads, first + h), {to + h * width, wide});
        };
        if (in_a_row(seats, count)) {
            mix_heads(qkv + (long)seats[0] * 3 * dim, dim, y + (long)seats[0] * dim);
            continue;
        }
        // Scattered tokens are read and written once, in the order of memory, and those of the next group asked for.
        Item* rows = scratch<Item>(5, (size_t)count * 3 * part);
        Item* answers = scratch<Item>(6, (size_t)count * part);
        const int32_t* next_seats = seats_of(std::min(item + 1, items - 1));
        const Item* next = tokens_of(std::min(item + 1, items - 1));
        for (int j = 0; j < count && some == heads; j++)
            for (int c = 0; c < 3 * dim; c += 64 / sizeof(Item))
                __builtin_prefetch(next + (long)std::max(0, next_seats[j]) * 3 * dim + c, 0, 2);
        for (int j = 0; j < count; j++) {
            const Item* token = seats[j] < 0 ? (const Item*)padding_ + first * width : qkv + (long)seats[j] * 3 * dim;
            for (int p = 0; p < 3; p++) copy(token + p * dim, part, rows + ((size_t)j * 3 + p) * part);
        }
        mix_heads(rows, part, answers);
        for (int j = 0; j < count; j++)
            if (seats[j] >= 0) copy(answers + (size_t)j * part, part, y + (long)seats[j] * dim);
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
    const int fitting = std::max(1, (96 << 10) / (int)(count * dim * sizeof(Item)));
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
        for (int r = 0; r < rows; r++) seats[r] = seat(r);
        for (int r = 0; r < rows; r++) {
            const long soon = seats[std::min(r + 8, rows - 1)];
            for (int c = 0; c < dim && soon >= 0; c += 64 / sizeof(Item)) __builtin_prefetch((const Item*)x_ + soon + c);
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
            for (int head = 0; head < heads; head++)
                attend<N>(count, width, {from + head * width, 3L * dim}, dim,
                          border.addend(bias, kinds, (start + g) % groups, heads, head), {to + head * width, dim});
        }
        product<N>(fresh, dim, rows, (const typename N::Word*)proj_, dim, dim, 0, panels(dim),
                   [&](int r, int c, Lanes sum) {
                       if (seats[r] < 0) return;
                       const Item* x = (const Item*)x_ + seats[r] + c;
                       put<N>((Item*)y_ + seats[r] + c, sum + load(proj_bias + c) + get<N>(x, dim - c), dim - c);
                   });
    }
}

// Attention of many queries to a few keys. q and y are (batch, queries, heads, width), kv (batch, keys, 2, heads, width).
template <class N>
static void keys_attend(const void* q_, int batch, int queries, int heads, int width, const void* kv_, int keys, void* y_,
                        int threads) {
    typedef typename N::Item Item;
    const long dim = (long)heads * width;
    const Border border(keys);
    // Shares of the queries that are worth laying the keys out for, and as many as give all threads work.
    const int worth = std::max(4 * BLOCK, keys), most = (queries + worth - 1) / worth;
    const int parts = (int)std::min<long>(most, std::max(1L, (4L * threads + batch * heads - 1) / (batch * heads)));
    const int part = round_up((queries + parts - 1) / parts, BLOCK);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long item = 0; item < (long)batch * heads * parts; item++) {
        const long image = item / parts / heads;
        const int head = item / parts % heads, first = item % parts * part;
        const Item* kv = (const Item*)kv_ + image * keys * 2 * dim + head * width;
        const long from = (image * queries + first) * dim + head * width;
        if (first < queries)
            answer<N>(Known<N>(keys, width, {kv, 2 * dim}, {kv + dim, 2 * dim}), std::min(part, queries - first),
                      {(const Item*)q_ + from, dim}, border.addend(nullptr, nullptr, 0, heads, head),
                      {(Item*)y_ + from, dim});
    }
}

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_attend_##name(const void* qkv, int batch, int tokens, int heads, int width, const int32_t* slots,     \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               void* y, int threads) {                                                                 \
        groups_attend<N>(qkv, batch, tokens, heads, width, slots, groups, count, padding, kinds, bias, y, threads);    \
    }                                                                                                                  \
    void vitrail_attend_keys_##name(const void* q, int batch, int queries, int heads, int width, const void* kv,       \
                                    int keys, void* y, int threads) {                                                  \
        keys_attend<N>(q, batch, queries, heads, width, kv, keys, y, threads);                                         \
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
