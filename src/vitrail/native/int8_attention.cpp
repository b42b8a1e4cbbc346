// What native/int8_attention.py calls: an attention branch whose layers are products of bytes. Queries, keys, values and
// all between them stay in single precision or bfloat16.

#include "attention.h"
#include "int8.h"

// The tokens of some groups, one after the other: where each lies among all, or -1 for padding.
static std::vector<long> seats_of(int start, int some, const int32_t* slots, int groups, int count, int tokens) {
    std::vector<long> seats((size_t)some * count);
    for (int r = 0; r < some * count; r++) {
        const int group = start + r / count;
        const int32_t token = slots[(size_t)(group % groups) * count + r % count];
        seats[r] = token < 0 ? -1 : (long)(group / groups) * tokens + token;
    }
    return seats;
}

// y = x + attention(norm(x) Wqkv + b) Wproj + b within groups, some groups at a time: only x and y leave the cache.
// slots, padding, kinds and bias are those of attention.cpp. Each token sits in one place.
template <class N>
static void branch(const void* x_, int batch, int tokens, int heads, int width, const int32_t* slots, int groups,
                   int count, const void* padding, const int32_t* kinds, const float* bias, const Outputs into,
                   const Outputs out_of, const float* factors, float eps, void* y_, int threads) {
    typedef typename N::Item Item;
    const int dim = heads * width, all = batch * groups, keys = round_up(count, LANES);
    const int wide = round_up(dim, Bytes::STEP);
    const int fitting = std::max(1, (192 << 10) / (int)(count * dim * sizeof(Item)));
    const int shares = (all + fitting * threads - 1) / (fitting * threads) * threads;
    const int run = (all + shares - 1) / shares;
    std::vector<float> none(keys, 0.0f);  // no bias, but no key beyond the last either
    std::fill(none.begin() + count, none.end(), -1e30f);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int start = 0; start < all; start += run) {
        const int some = std::min(run, all - start), rows = some * count;
        const std::vector<long> seats = seats_of(start, some, slots, groups, count, tokens);
        uint8_t* bytes = scratch<uint8_t>(0, (size_t)run * count * wide);
        Reading* readings = scratch<Reading>(0, (size_t)run * count);
        Item* qkv = scratch<Item>(6, (size_t)run * count * 3 * dim);
        Item* mixed = scratch<Item>(5, (size_t)run * count * dim);
        for (int r = 0; r < rows; r++) {
            const Item* from = seats[r] < 0 ? nothing<Item>(dim) : (const Item*)x_ + seats[r] * dim;
            readings[r] = quantise_normed<N>(from, dim, factors, eps, bytes + (size_t)r * wide);
        }
        byte_product(bytes, wide, rows, readings, into, 0, panels(3 * dim),
                     [&](int r, int c, Lanes x) { put<N>(qkv + (size_t)r * 3 * dim + c, x, 3 * dim - c); });
        for (int r = 0; r < rows; r++)
            if (seats[r] < 0) std::memcpy(qkv + (size_t)r * 3 * dim, padding, 3 * dim * sizeof(Item));
        for (int item = 0; item < some * heads; item++) {
            const int head = item % heads, first = item / heads * count, group = (start + item / heads) % groups;
            const float* table = bias == nullptr ? none.data() : bias + (size_t)(kinds[group] * heads + head) * count * keys;
            const size_t at = (size_t)first * dim;
            attend<N>(count, width, {qkv + 3 * at + head * width, 3L * dim}, dim,
                      Addend{table, bias == nullptr ? 0 : keys}, {mixed + at + head * width, dim});
        }
        for (int r = 0; r < rows; r++)
            readings[r] = quantise<N>(mixed + (size_t)r * dim, dim, bytes + (size_t)r * wide);
        byte_product(bytes, wide, rows, readings, out_of, 0, panels(dim), [&](int r, int c, Lanes sum) {
            if (seats[r] < 0) return;
            const size_t at = (size_t)seats[r] * dim + c;
            put<N>((Item*)y_ + at, sum + get<N>((const Item*)x_ + at, dim - c), dim - c);
        });
    }
}

extern "C" {
#define FOR(name, N)                                                                                                   \
    void vitrail_branch_##name(const void* x, int batch, int tokens, int heads, int width, const int32_t* slots,       \
                               int groups, int count, const void* padding, const int32_t* kinds, const float* bias,    \
                               WEIGHTS(qkv), WEIGHTS(proj), const float* factors, float eps, void* y, int threads) {   \
        branch<N>(x, batch, tokens, heads, width, slots, groups, count, padding, kinds, bias, HELD(qkv), HELD(proj),   \
                  factors, eps, y, threads);                                                                           \
    }

FOR(float32, Single)
#if defined(__AVX512BF16__)
FOR(bfloat16, Brain)
#endif
}
