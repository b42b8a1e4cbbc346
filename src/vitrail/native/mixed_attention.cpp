// Exports for native/mixed_attention.py: attention whose scores and probabilities are mixed across heads.
//
// A block of queries has the scores of all heads at once: (heads, rows, keys) in fp32, about 100 KB for 12 heads and
// 197 keys, so that mixing reads and writes the L2 and no map of an image reaches memory.

#include "arguments.h"
#include "attention.h"

constexpr int MOST_HEADS = 32;

// Linear layer over the heads of each query and key, or none if the weight is null.
struct HeadLayerArgs {
    const float* weight;  // (heads, heads)
    const float* bias;    // (heads)
};

// Arguments of `mixed_attend`.
struct MixedAttendArgs {
    const void* qkv;  // (batch, tokens, 3, heads, width), queries scaled
    int batch, tokens, heads, width;
    HeadLayerArgs before;  // on the scores
    HeadLayerArgs after;   // on the probabilities
    void* y;               // (batch, tokens, heads, width)
    int threads;
};

// G outputs of a layer over heads for 2 * LANES keys: `emit(g, v, sum)`.
template <int G, class Emit>
static inline void mix_some_heads(const Vec (*in)[2], int heads, const HeadLayerArgs& layer, int first, Emit&& emit) {
    Vec sum[G][2];
    for (int g = 0; g < G; g++) sum[g][0] = sum[g][1] = broadcast(layer.bias[first + g]);
    for (int h = 0; h < heads; h++)
        for (int g = 0; g < G; g++) {
            const Vec weight = broadcast(layer.weight[(first + g) * heads + h]);
            sum[g][0] += weight * in[h][0];
            sum[g][1] += weight * in[h][1];
        }
    for (int g = 0; g < G; g++)
        for (int v = 0; v < 2; v++) emit(first + g, v, sum[g][v]);
}

// The layer over heads for `rows` rows of `keys` numbers, a multiple of LANES; `apart` from one head to the next.
// `emit` gets head, offset within a head and the sums; it may write them in place.
template <class Emit>
static void mix_heads(const float* x, long apart, long numbers, int heads, const HeadLayerArgs& layer, Emit&& emit) {
    for (long at = 0; at < numbers; at += 2 * LANES) {
        const int vectors = numbers - at > LANES ? 2 : 1;
        Vec in[MOST_HEADS][2];
        for (int h = 0; h < heads; h++) {
            in[h][0] = load(x + h * apart + at);
            in[h][1] = vectors == 2 ? load(x + h * apart + at + LANES) : Vec{};
        }
        auto write = [&](int g, int v, Vec sum) {
            if (v < vectors) emit(g, at + v * LANES, sum);
        };
        int g = 0;
        for (; g + 4 <= heads; g += 4) mix_some_heads<4>(in, heads, layer, g, write);
        for (; g < heads; g++) mix_some_heads<1>(in, heads, layer, g, write);
    }
}

// y = after(softmax(before(q k^T))) v of the queries [first, last) of one image.
template <class N>
static void mixed_attend(const MixedAttendArgs& a, const typename N::Item* qkv, int first, int last,
                         typename N::Item* y) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const int count = a.tokens, heads = a.heads, width = a.width, keys = round_up(count, LANES);
    const long dim = (long)heads * width, apart = (long)BLOCK * keys;
    const int held = N::AMX ? keys : count, steps = round_up(held, N::K_STEP) / N::K_STEP;
    const size_t key_size = (size_t)round_up(count, PANEL) * width;
    const size_t value_size = (size_t)round_up(width, PANEL) * steps * N::K_STEP;
    KPack *packed_keys = scratch<KPack>(0, heads * key_size), *packed_values = scratch<KPack>(1, heads * value_size);
    for (int h = 0; h < heads; h++) {
        const Item *k = qkv + dim + h * width, *v = qkv + 2 * dim + h * width;
        pack_keys<N>(count, width, [&](int j) { return k + j * 3 * dim; }, packed_keys + h * key_size);
        pack_values<N>(
            held, width, [&](int j) { return j < count ? v + j * 3 * dim : nothing<Item>(width); },
            packed_values + h * value_size);
    }
    float* scores = scratch<float>(2, heads * apart);
    Item* probs = scratch<Item>(3, heads * apart);
    for (int from = first; from < last; from += BLOCK) {
        const int some = std::min(BLOCK, last - from);
        const long numbers = (long)some * keys;
        for (int h = 0; h < heads; h++) {
            float* own = scores + h * apart;
            gemm<N>(qkv + from * 3 * dim + h * width, 3 * dim, some, packed_keys + h * key_size, width, count, 0,
                    panels(count), [&](int r, int j, Vec score) { store(own + (long)r * keys + j, score); });
        }
        if (a.before.weight != nullptr)
            mix_heads(scores, apart, numbers, heads, a.before,
                      [&](int g, long at, Vec sum) { store(scores + g * apart + at, sum); });
        for (int h = 0; h < heads; h++)
            for (int r = 0; r < some; r++) softmax_row<N>(scores + h * apart + (long)r * keys, count, keys);
        if (a.after.weight != nullptr) {
            mix_heads(scores, apart, numbers, heads, a.after,
                      [&](int g, long at, Vec sum) { N::write(probs + g * apart + at, sum); });
        } else {
            for (int h = 0; h < heads; h++)
                for (long at = 0; at < numbers; at += LANES)
                    N::write(probs + h * apart + at, load(scores + h * apart + at));
        }
        for (int h = 0; h < heads; h++)
            mix<N>(
                some, probs + h * apart, keys, packed_values + h * value_size, steps, width,
                [&](int r, int c, Vec sum) { store_partial<N>(y + (from + r) * dim + h * width + c, sum, width - c); });
    }
}

template <class N>
static void mixed_attend(const MixedAttendArgs& a) {
    typedef typename N::Item Item;
    const long dim = (long)a.heads * a.width;
    // Parallel over images, or, if there are few, also over blocks of queries; each part packs all keys and values.
    const int parts = a.batch >= 4 * a.threads ? 1 : std::min((a.tokens + BLOCK - 1) / BLOCK, 2 * a.threads);
    const int part = round_up((a.tokens + parts - 1) / parts, BLOCK);
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (int item = 0; item < a.batch * parts; item++) {
        const long image = item / parts;
        const int first = item % parts * part, last = std::min(a.tokens, first + part);
        if (first < last)
            mixed_attend<N>(a, (const Item*)a.qkv + image * a.tokens * 3 * dim, first, last,
                            (Item*)a.y + image * a.tokens * dim);
    }
}

extern "C" {
SIZE_OF(MixedAttendArgs)

#define FOR(name, N) \
    void vitrail_mixed_attend_##name(const MixedAttendArgs& a) { mixed_attend<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
