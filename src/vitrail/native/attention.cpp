// What native/attention.py calls: attention of tokens that stay where they are.

#include "attention.h"

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
#define FOR(name, N)                                                                                                   \
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
