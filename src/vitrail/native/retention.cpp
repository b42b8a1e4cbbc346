// Exports for native/retention.py: causal linear attention with exponential decay (RetNet), its norm and its gate.

#include "arguments.h"
#include "attention_branch.h"

// Arguments of `retain`.
struct RetainArgs {
    const void*
        rows;  // (batch, tokens, inner): queries (heads, width), keys, values (heads, wide), gates (heads, wide)
    int batch, tokens, heads, width, wide;
    const float* cos;  // (tokens, width): RotatedScores
    const float* sin;
    const float* decay;  // (heads, 2 tokens + PANEL): gamma^(tokens - 1 - i), then 0
    const float* scale;  // (heads, tokens): factor of the decays of a row
    float eps;           // of the norm of a head
    void* y;             // (batch, tokens, heads, wide)
    int threads;
};

// y = silu(gate) * norm(o) for one head, o_n = sum_m s_nm v_m / max(1, |sum_m s_nm|), s_nm = scale_n gamma^(n - m) q_n
// k_m.
template <class N>
static void retain_head(const RetainArgs& a, const typename N::Item* rows, int head, typename N::Item* y) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const int count = a.tokens, width = a.width, wide = a.wide, held = N::AMX ? round_up(count, LANES) : count;
    const long inner = 2L * a.heads * (width + wide), line = (long)a.heads * wide;
    const int steps = round_up(held, N::K_STEP) / N::K_STEP, room = round_up(wide, LANES);
    KPack* keys = scratch<KPack>(0, (size_t)round_up(count, PANEL) * width);
    KPack* values = scratch<KPack>(1, (size_t)round_up(wide, PANEL) * steps * N::K_STEP);
    Item* turned = scratch<Item>(5, (size_t)count * 2 * width);  // queries, then keys
    Item* probs = scratch<Item>(3, (size_t)BLOCK * round_up(count, LANES));
    float* mixed = scratch<float>(2, (size_t)BLOCK * room);
    for (int n = 0; n < count; n++)
        for (int part = 0; part < 2; part++)
            std::memcpy(turned + ((size_t)part * count + n) * width,
                        rows + n * inner + ((long)part * a.heads + head) * width, width * sizeof(Item));
    for (int part = 0; part < 2; part++)
        for (int n = 0; n < count; n++)
            RotatedScores::turn<N>(turned + ((size_t)part * count + n) * width, width, a.cos + (size_t)n * width,
                                   a.sin + (size_t)n * width);
    const Item* v = rows + 2L * a.heads * width + (long)head * wide;
    pack_keys<N>(count, width, [&](int j) { return turned + ((size_t)count + j) * width; }, keys);
    pack_values<N>(held, wide, [&](int j) { return j < count ? v + j * inner : nothing<Item>(wide); }, values);
    const float* decay = a.decay + (size_t)head * (2 * count + PANEL) + count - 1;
    const float* scale = a.scale + (size_t)head * count;
    for (int first = 0; first < count; first += BLOCK) {
        const int some = std::min(BLOCK, count - first), seen = std::min(count, round_up(first + some, PANEL));
        const int across = round_up(seen, LANES);
        Vec sums[BLOCK] = {};
        gemm<N>(turned + (size_t)first * width, width, some, keys, width, seen, 0, panels(seen),
                [&](int r, int j, Vec score) {
                    score *= load(decay - first - r + j) * scale[first + r];
                    sums[r] += score;
                    N::write(probs + (size_t)r * across + j, score);
                });
        mix_first<N>(some, probs, across, values, steps, seen == count ? steps : seen / N::K_STEP, wide,
                     [&](int r, int c, Vec sum) { store(mixed + (size_t)r * room + c, sum); });
        for (int r = 0; r < some; r++) {
            const float* o = mixed + (size_t)r * room;
            const float by = 1.0f / std::max(1.0f, std::fabs(add_up(sums[r])));
            Vec squares = Vec{};
            for (int c = 0; c < wide; c += LANES) {
                const Vec part = load_partial<Float32>(o + c, wide - c) * by;
                squares += part * part;
            }
            const float norm = by / std::sqrt(add_up(squares) / wide + a.eps);
            const Item* gate = v + line + (first + r) * inner;
            for (int c = 0; c < wide; c += LANES) {
                const Vec g = load_partial<N>(gate + c, wide - c);
                store_partial<N>(y + (first + r) * line + c, g / (1.0f + N::exponential(-g)) * load(o + c) * norm,
                                 wide - c);
            }
        }
    }
}

template <class N>
static void retain(const RetainArgs& a) {
    typedef typename N::Item Item;
    const long inner = 2L * a.heads * (a.width + a.wide), line = (long)a.heads * a.wide;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long item = 0; item < (long)a.batch * a.heads; item++) {
        const long first = item / a.heads * a.tokens;
        const int head = (int)(item % a.heads);
        retain_head<N>(a, (const Item*)a.rows + first * inner, head, (Item*)a.y + first * line + (long)head * a.wide);
    }
}

extern "C" {
SIZE_OF(RetainArgs)

#define FOR(name, N) \
    void vitrail_retain_##name(const RetainArgs& a) { retain<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
