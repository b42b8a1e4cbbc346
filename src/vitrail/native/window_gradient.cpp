// Exports for native/window_gradient.py: attention within groups of tokens, forward and backward.

#include "arguments.h"
#include "reduce.h"
#include "window_gradient.h"

// qkv (batch, tokens, 3, heads, width). slots (groups, count): token index of each slot; -1 is padding, read from
// `padding` (3, heads, width). kinds (groups): index of each group into bias (all kinds, heads, count, line),
// key-major; or both are null. row_stats (batch, groups, heads, 2, line), with line = round_up(count, LANES).
template <class N>
struct Groups {
    typedef typename N::Item Item;
    const Item* qkv;
    int batch, tokens, heads, width;
    const int32_t* slots;
    int groups, count;
    const Item* padding;
    const int32_t* kinds;
    const float* bias;

    int channels() const { return heads * width; }
    size_t line() const { return round_up(count, LANES); }
    size_t table() const { return count * line(); }
    long items() const { return (long)batch * groups; }
    const int32_t* seats(long item) const { return slots + (size_t)(item % groups) * count; }
    size_t first_token(long item) const { return (size_t)(item / groups) * tokens; }
    size_t kind(long item) const { return kinds == nullptr ? 0 : kinds[item % groups]; }
    float* row_stats_of(float* row_stats, long item, int head) const {
        return row_stats + (item * heads + head) * 2 * line();
    }

    GroupHead group_head(long item, int head) const {
        const float* add = bias == nullptr ? nullptr : bias + (kind(item) * heads + head) * table();
        return {count, width, 1.0f / std::sqrt((float)width), add};
    }

    // Address of each part (query, key, value) of each token of a group.
    auto token(long item, int head) const {
        const int32_t* seat = seats(item);
        const Item *first = qkv + first_token(item) * 3 * channels(), *empty = padding;
        const int wide = channels(), offset = head * width;
        return [=](int part, int j) {
            return (seat[j] < 0 ? empty : first + (size_t)seat[j] * 3 * wide) + (size_t)part * wide + offset;
        };
    }
};

// Touch the tokens of a group, `wide` Items each, in the order of memory: this reaches full bandwidth; access by heads
// and parts does not, nor do software prefetches. Also used for outputs, to have their lines in cache.
template <class N>
static inline void visit(const Groups<N>& g, long item, const void* rows, int wide) {
    const int32_t* seats = g.seats(item);
    const char* first = (const char*)((const typename N::Item*)rows + g.first_token(item) * wide);
    const size_t bytes = wide * sizeof(typename N::Item);
    for (int j = 0; j < g.count; j++)
        for (size_t at = 0; at < bytes; at += 64)
            (void)*(volatile const char*)(first + std::max(seats[j], 0) * bytes + at);
}

template <class N>
static void forward(const Groups<N>& g, float* row_stats, void* y_, int threads) {
    typedef typename N::Item Item;
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (long item = 0; item < g.items(); item++) {
        const int32_t* seats = g.seats(item);
        Item* y = (Item*)y_ + g.first_token(item) * g.channels();
        visit<N>(g, item, g.qkv, 3 * g.channels());
        visit<N>(g, item, y_, g.channels());
        for (int head = 0; head < g.heads; head++) {
            group_attention<N>(g.group_head(item, head), g.token(item, head), g.row_stats_of(row_stats, item, head),
                               [&](int i) -> Item* {
                                   return seats[i] < 0 ? nullptr : y + (size_t)seats[i] * g.channels() + head * g.width;
                               });
        }
    }
}

// Chunks of groups, each with its own partial sums.
constexpr size_t MOST_CHUNKS = 64, LEAST_CHUNKS = 8, ROOM_OF_CHUNKS = 1 << 20;

template <class N>
static void backward(const Groups<N>& g, const void* dy_, const float* row_stats, void* dqkv_, float* dbias,
                     int all_kinds, float* dpadding, int threads) {
    typedef typename N::Item Item;
    const Item* zeros = nothing<Item>(g.width);
    const int wide = g.channels();
    const size_t biases = all_kinds * g.heads * g.table();
    const size_t fitting = ROOM_OF_CHUNKS / std::max<size_t>(1, dbias == nullptr ? 0 : biases);
    const long chunks = std::min<long>(g.items(), std::max(LEAST_CHUNKS, std::min(MOST_CHUNKS, fitting)));
    Sums grad_bias(dbias, biases, chunks), grad_padding(dpadding, 3 * wide, chunks);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long chunk = 0; chunk < chunks; chunk++) {
        float *bias_sums = grad_bias.of(chunk), *padding_sums = grad_padding.of(chunk);
        for (long item = g.items() * chunk / chunks; item < g.items() * (chunk + 1) / chunks; item++) {
            const int32_t* seats = g.seats(item);
            const Item* dy = (const Item*)dy_ + g.first_token(item) * wide;
            Item* dqkv = (Item*)dqkv_ + g.first_token(item) * 3 * wide;
            visit<N>(g, item, g.qkv, 3 * wide);
            visit<N>(g, item, dy_, wide);
            visit<N>(g, item, dqkv_, 3 * wide);
            for (int head = 0; head < g.heads; head++) {
                const size_t offset = (size_t)head * g.width;
                float* total = dbias == nullptr ? nullptr : bias_sums + (g.kind(item) * g.heads + head) * g.table();
                part<N>(
                    g.group_head(item, head), g.token(item, head),
                    [&](int i) { return seats[i] < 0 ? zeros : dy + (size_t)seats[i] * wide + offset; },
                    g.row_stats_of((float*)row_stats, item, head), total,
                    [&](int part, int j, int c, Vec sum) {
                        const size_t at = (size_t)part * wide + offset + c;
                        if (seats[j] >= 0)
                            return store_partial<N>(dqkv + (size_t)seats[j] * 3 * wide + at, sum, g.width - c);
                        if (padding_sums == nullptr) return;
                        for (int k = 0; k < std::min(LANES, g.width - c); k++) padding_sums[at + k] += sum[k];
                    });
            }
        }
    }
    grad_bias.add_up(dbias, threads);
    grad_padding.add_up(dpadding, threads);
}

// Arguments of `forward`.
struct WindowForwardArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    GroupsArgs groups;
    float* row_stats;  // (batch, groups, heads, 2, line)
    void* y;           // (batch, tokens, heads, width)
    int threads;
};

// Arguments of `backward`.
struct WindowBackwardArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    GroupsArgs groups;
    const float* row_stats;  // (batch, groups, heads, 2, line)
    const void* dy;          // (batch, tokens, heads, width)
    void* dqkv;              // as qkv
    float* dbias;            // (kinds, heads, count, line), or null
    int all_kinds;
    float* dpadding;  // (3, heads, width), or null
    int threads;
};

template <class N, class Args>
static Groups<N> groups_of(const Args& a) {
    typedef const typename N::Item* Items;
    const GroupsArgs& g = a.groups;
    return {(Items)a.qkv, a.batch, a.tokens,         a.heads, a.width, g.slots,
            g.groups,     g.count, (Items)g.padding, g.kinds, g.bias};
}

template <class N>
static void forward(const WindowForwardArgs& a) {
    forward<N>(groups_of<N>(a), a.row_stats, a.y, a.threads);
}

template <class N>
static void backward(const WindowBackwardArgs& a) {
    backward<N>(groups_of<N>(a), a.dy, a.row_stats, a.dqkv, a.dbias, a.all_kinds, a.dpadding, a.threads);
}

extern "C" {
int vitrail_lanes() { return LANES; }

SIZE_OF(WindowForwardArgs)
SIZE_OF(WindowBackwardArgs)

#define FOR(name, N)                                                                  \
    void vitrail_window_forward_##name(const WindowForwardArgs& a) { forward<N>(a); } \
    void vitrail_window_backward_##name(const WindowBackwardArgs& a) { backward<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
