// Exports for native/attention.py: attention within groups of tokens, gathered by index.

#include "attention_branch.h"

// Copy a short row; faster than the dispatch of memcpy.
template <class Item>
static inline void copy(const Item* from, int count, Item* to) {
    constexpr int once = sizeof(Vec) / sizeof(Item);
    int i = 0;
    for (; i + once <= count; i += once) {
        Vec some;
        std::memcpy(&some, from + i, sizeof(some));
        std::memcpy(to + i, &some, sizeof(some));
    }
    for (; i < count; i++) to[i] = from[i];
}

// Whether the tokens of a group are contiguous, without padding.
static bool in_a_row(const int32_t* seats, int count) {
    bool so = seats[0] >= 0;
    for (int j = 1; j < count; j++) so &= seats[j] == seats[0] + j;
    return so;
}

// Attention within groups of tokens. qkv is (batch, tokens, 3, heads, width), y (batch, tokens, heads, width).
template <class N, class HeadWeights>
static void groups_attend(const Stream<N, N>& stream, const TokenGroups& token_groups, const BiasAndMask& addends,
                          const HeadWeights& head_weights, int threads) {
    typedef typename N::Item Item;
    const int heads = stream.heads, width = stream.width, dim = heads * width, count = token_groups.count;
    // Parallel over groups, or, if there are few, over the heads of each group.
    const int some = token_groups.all() >= 8L * threads ? heads : 1;
    const int parts = heads / some, part = some * width;
    const long items = token_groups.all() * parts;
    const int chunk = (int)std::max(1L, std::min(16L, items / (16 * threads)));
    auto tokens_of = [=](long item) {
        return stream.x + token_groups.first_token(item / parts) * 3 * dim + item % parts * part;
    };
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (long item = 0; item < items; item++) {
        const int first = item % parts * some, group = item / parts % token_groups.groups;
        const int32_t* seats = token_groups.of(item / parts);
        const Item* qkv = tokens_of(item);
        Item* y = stream.y + token_groups.first_token(item / parts) * dim + first * width;
        auto mix_heads = [&](const Item* from, int wide, Item* to) {
            for (int h = 0; h < some; h++)
                attend<N>(count, width, {from + h * width, 3L * wide}, wide, addends.of(group, first + h),
                          {to + h * width, wide}, head_weights.of(first + h));
        };
        if (in_a_row(seats, count)) {
            mix_heads(qkv + (long)seats[0] * 3 * dim, dim, y + (long)seats[0] * dim);
            continue;
        }
        // Gather scattered tokens, scatter the outputs, and prefetch the tokens of the next group.
        Item* rows = scratch<Item>(5, (size_t)count * 3 * part);
        Item* answers = scratch<Item>(6, (size_t)count * part);
        const long soon = std::min(item + 1, items - 1);
        const int32_t* next_seats = token_groups.of(soon / parts);
        const Item* next = tokens_of(soon);
        for (int j = 0; j < count && some == heads; j++)
            for (int c = 0; c < 3 * dim; c += 64 / sizeof(Item))
                __builtin_prefetch(next + (long)std::max(0, next_seats[j]) * 3 * dim + c, 0, 2);
        for (int j = 0; j < count; j++) {
            const Item* token = seats[j] < 0 ? stream.padding + first * width : qkv + (long)seats[j] * 3 * dim;
            for (int p = 0; p < 3; p++) copy(token + p * dim, part, rows + ((size_t)j * 3 + p) * part);
        }
        mix_heads(rows, part, answers);
        for (int j = 0; j < count; j++)
            if (seats[j] >= 0) copy(answers + (size_t)j * part, part, y + (long)seats[j] * dim);
    }
}

// Arguments of `keys_attend`.
struct AttendKeysArgs {
    const void* q;  // (batch, queries, heads, width)
    int batch, queries, heads, width;
    const void* kv;  // (batch, keys, 2, heads, width)
    int keys;
    void* y;  // as q
    int threads;
};

// Keys of a segment: packed with their values they stay in the cache of a core while all queries read them.
constexpr int SEGMENT = 256;

// Attention to so many keys that they are packed in segments. Each thread packs the keys of its queries.
template <class N>
static void segments_attend(const AttendKeysArgs& a) {
    typedef typename N::Item Item;
    const int batch = a.batch, queries = a.queries, heads = a.heads, width = a.width, keys = a.keys;
    const long dim = (long)heads * width;
    const int parts = std::max(1, std::min(a.threads / (batch * heads), (queries + BLOCK - 1) / BLOCK));
    const int part = round_up((queries + parts - 1) / parts, BLOCK), last = (keys - 1) % SEGMENT + 1;
    const BiasAndMask whole(SEGMENT, heads, nullptr, nullptr), rest(last, heads, nullptr, nullptr);
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)batch * heads * parts; item++) {
        const long image = item / parts / heads;
        const int head = item / parts % heads, first = item % parts * part;
        if (first >= queries) continue;
        const Item* kv = (const Item*)a.kv + image * keys * 2 * dim + head * width;
        const long from = (image * queries + first) * dim + head * width;
        SegmentedRows<N> rows(std::min(part, queries - first), width, {(const Item*)a.q + from, dim});
        for (int key = 0; key < keys; key += SEGMENT) {
            const int count = std::min(SEGMENT, keys - key);
            const Item* some = kv + key * 2 * dim;
            rows.add(PackedKV<N>(count, width, {some, 2 * dim}, {some + dim, 2 * dim}),
                     (count == SEGMENT ? whole : rest).of(0, head).at);
        }
        rows.store_to({(Item*)a.y + from, dim});
    }
}

// Attention of many queries to a few keys.
template <class N>
static void keys_attend(const AttendKeysArgs& a) {
    typedef typename N::Item Item;
    if (a.keys > 4 * SEGMENT) return segments_attend<N>(a);
    const int batch = a.batch, queries = a.queries, heads = a.heads, width = a.width, keys = a.keys;
    const long dim = (long)heads * width;
    const BiasAndMask addends(keys, heads, nullptr, nullptr);
    // Split the queries to occupy all threads, but keep enough per part to amortise packing the keys.
    const int min_queries = std::max(4 * BLOCK, keys), most = (queries + min_queries - 1) / min_queries;
    const int parts = (int)std::min<long>(most, std::max(1L, (4L * a.threads + batch * heads - 1) / (batch * heads)));
    const int part = round_up((queries + parts - 1) / parts, BLOCK);
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)batch * heads * parts; item++) {
        const long image = item / parts / heads;
        const int head = item / parts % heads, first = item % parts * part;
        const Item* kv = (const Item*)a.kv + image * keys * 2 * dim + head * width;
        const long from = (image * queries + first) * dim + head * width;
        if (first < queries)
            attend_queries<N>(PackedKV<N>(keys, width, {kv, 2 * dim}, {kv + dim, 2 * dim}),
                              std::min(part, queries - first), {(const Item*)a.q + from, dim}, addends.of(0, head),
                              {(Item*)a.y + from, dim});
    }
}

// Arguments of `causal_attend`.
struct AttendCausalArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    void* y;  // (batch, tokens, heads, width)
    int threads;
};

// Attention of each token to itself and those before it.
template <class N>
static void causal_attend(const AttendCausalArgs& a) {
    typedef typename N::Item Item;
    const int tokens = a.tokens, width = a.width;
    const long dim = (long)a.heads * width;
    std::vector<float> slope(2 * (size_t)tokens + PANEL, -1e30f);
    std::fill(slope.begin(), slope.begin() + tokens, 0.0f);
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)a.batch * a.heads; item++) {
        const long first = item / a.heads * tokens, head = item % a.heads * width;
        const Item* qkv = (const Item*)a.qkv + first * 3 * dim + head;
        attend_causally<N>(PackedKV<N>(tokens, width, {qkv + dim, 3 * dim}, {qkv + 2 * dim, 3 * dim}), tokens,
                           {qkv, 3 * dim}, slope.data(), {(Item*)a.y + first * dim + head, dim});
    }
}

// Arguments of `groups_attend`.
struct AttendArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    GroupsArgs groups;
    void* y;  // (batch, tokens, heads, width)
    int threads;
};

template <class N, class HeadWeights = SoftmaxHeads>
static void attend(const AttendArgs& a, const HeadWeights& head_weights = {}) {
    const GroupsArgs& g = a.groups;
    groups_attend<N>(
        {(const typename N::Item*)a.qkv, (const typename N::Item*)g.padding, (typename N::Item*)a.y, a.heads, a.width},
        {a.batch, a.tokens, g.slots, g.groups, g.count}, {g.count, a.heads, g.kinds, g.bias}, head_weights, a.threads);
}

// Arguments of `attend` with positions mixed in.
struct AttendGatedArgs {
    AttendArgs attend;
    const void* positions;      // (heads, count, round_up(count, LANES)), zero for padding keys
    const float* content_gate;  // (heads)
};

template <class N>
static void attend_gated(const AttendGatedArgs& a) {
    typedef typename N::Item Item;
    attend<N>(a.attend, GatedHeads<Item>{(const Item*)a.positions, a.content_gate, a.attend.groups.count});
}

// Arguments of `rotate`.
struct RotateArgs {
    void* qkv;  // (batch, tokens, 3, heads, width)
    int batch, tokens, heads, width;
    const float* cos;  // (tokens, width)
    const float* sin;
    int threads;
};

// Turn queries and keys in place.
template <class N>
static void rotate(const RotateArgs& a) {
    typedef typename N::Item Item;
    const long line = 3L * a.heads * a.width;
#pragma omp parallel for schedule(static) num_threads(a.threads)
    for (long row = 0; row < (long)a.batch * a.tokens; row++) {
        const long angle = row % a.tokens * a.width;
        RotatedScores{a.cos + angle, a.sin + angle, 1}.operator()<N>((Item*)a.qkv + row * line, 1, a.heads, a.width);
    }
}

extern "C" {
SIZE_OF(AttendArgs)
SIZE_OF(AttendCausalArgs)
SIZE_OF(AttendGatedArgs)
SIZE_OF(AttendKeysArgs)
SIZE_OF(BranchArgs)
SIZE_OF(CosineBranchArgs)
SIZE_OF(GatedBranchArgs)
SIZE_OF(RotateArgs)
SIZE_OF(RotatedBranchArgs)

#define FOR(name, N)                                                                                     \
    void vitrail_attend_##name(const AttendArgs& a) { attend<N>(a); }                                    \
    void vitrail_attend_causal_##name(const AttendCausalArgs& a) { causal_attend<N>(a); }                \
    void vitrail_attend_gated_##name(const AttendGatedArgs& a) { attend_gated<N>(a); }                   \
    void vitrail_attend_keys_##name(const AttendKeysArgs& a) { keys_attend<N>(a); }                      \
    void vitrail_branch_##name(const BranchArgs& a) { branch<LinearWeights<N>>(a); }                     \
    void vitrail_cosine_branch_##name(const CosineBranchArgs& a) { cosine_branch<LinearWeights<N>>(a); } \
    void vitrail_gated_branch_##name(const GatedBranchArgs& a) { gated_branch<LinearWeights<N>>(a); }    \
    void vitrail_rotate_##name(const RotateArgs& a) { rotate<N>(a); }                                    \
    void vitrail_rotated_branch_##name(const RotatedBranchArgs& a) { rotated_branch<LinearWeights<N>>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
