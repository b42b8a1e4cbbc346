// Softmax attention of one head over one group of tokens.

#pragma once

#include "packing.h"

// Block size over queries, chosen so that windows of 49 tokens do not leave a tile with a single row.
constexpr int TILE = 5, BLOCK = 2 * TILE;

// Rows of one head: first row and row stride.
template <class Item>
struct RowView {
    Item* at;
    long stride;
    Item* of(int row) const { return at + row * stride; }
};

// Bias rows of a group's scores; `stride` is 0 if all queries share one row.
struct RowBias {
    const float* at;
    long stride;
};

// Unnormalised softmax without max subtraction: e^score, divided by the row sum at the end. Subtracting the row max
// prevents overflow but needs a pass over all scores before the first exponential, and scores are rarely that large. So
// a row is recomputed with max subtraction only if its sum over- or underflows.
static inline bool within_reach(float sum) { return sum > 1e-20f && sum < 1e30f; }

// Softmax of a row in place; padding keys get zero.
template <class N>
static inline void softmax_row(float* row, int count, int keys) {
    for (int j = count; j < keys; j++) row[j] = -INFINITY;
    Vec most = load(row);
    for (int j = LANES; j < keys; j += LANES) most = max_nan(most, load(row + j));
    const float highest = top(most);
    Vec sum = Vec{};
    for (int j = 0; j < keys; j += LANES) {
        const Vec prob = N::exponential(load(row + j) - highest);
        store(row + j, prob);
        sum += prob;
    }
    for (int j = count; j < keys; j++) row[j] = 0;
    const float whole = 1.0f / add_up(sum);
    for (int j = 0; j < keys; j += LANES) store(row + j, load(row + j) * whole);
}

// Row sums of R queries whose keys are all in one panel of V vectors: scores stay in registers.
template <class N, int R, int V>
static inline void probs_of_panel(const typename N::Item* queries, long stride, int width,
                                  const typename N::KPack* keys, RowBias bias, typename N::Item* probs, float* sums) {
    Vec score[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) score[r][v] = load(bias.at + r * bias.stride + v * LANES);
    add_products<N, R, V>(queries, stride, keys, width / N::K_STEP, keys, score);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        Vec sum = Vec{};
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            const Vec prob = N::exponential(score[r][v]);
            sum += prob;
            N::write(probs + (r * V + v) * LANES, prob);
        }
        sums[r] = add_up(sum);
    }
}

template <class N, int V>
static inline void probs_of_panel(int some, const typename N::Item* queries, long stride, int width,
                                  const typename N::KPack* keys, RowBias bias, typename N::Item* probs, float* sums) {
    switch (some) {
        case 1: return probs_of_panel<N, 1, V>(queries, stride, width, keys, bias, probs, sums);
        case 2: return probs_of_panel<N, 2, V>(queries, stride, width, keys, bias, probs, sums);
        case 3: return probs_of_panel<N, 3, V>(queries, stride, width, keys, bias, probs, sums);
        case 4: return probs_of_panel<N, 4, V>(queries, stride, width, keys, bias, probs, sums);
        default: return probs_of_panel<N, TILE, V>(queries, stride, width, keys, bias, probs, sums);
    }
}

// The same for any number of keys.
template <class N>
static inline void probs_of_panels(int some, const typename N::Item* queries, long stride, int width,
                                   const typename N::KPack* packed, int count, RowBias bias, typename N::Item* probs,
                                   float* sums) {
    const int keys = round_up(count, LANES);
    Vec sum[2 * ROWS] = {};
    gemm<N>(queries, stride, some, packed, width, count, 0, panels(count), [&](int r, int j, Vec score) {
        const Vec prob = N::exponential(score + load(bias.at + r * bias.stride + j));
        sum[r] += prob;
        N::write(probs + r * keys + j, prob);
    });
    for (int r = 0; r < some; r++) sums[r] = add_up(sum[r]);
}

// The same with row max subtraction.
template <class N>
static void probs_below_max(int some, const typename N::Item* queries, long stride, int width,
                            const typename N::KPack* packed, int count, RowBias bias, typename N::Item* probs,
                            float* sums) {
    const int keys = round_up(count, LANES);
    float* scores = scratch<float>(2, (size_t)BLOCK * keys);
    Vec most[2 * ROWS];
    for (int r = 0; r < some; r++) most[r] = broadcast(-1e30f);
    gemm<N>(queries, stride, some, packed, width, count, 0, panels(count), [&](int r, int j, Vec score) {
        score += load(bias.at + r * bias.stride + j);
        most[r] = max(most[r], score);
        store(scores + r * keys + j, score);
    });
    for (int r = 0; r < some; r++) {
        const float row_max = top(most[r]);
        Vec sum = Vec{};
        for (int j = 0; j < keys; j += LANES) {
            const Vec prob = N::exponential(load(scores + r * keys + j) - row_max);
            sum += prob;
            N::write(probs + r * keys + j, prob);
        }
        sums[r] = add_up(sum);
    }
}

template <class N>
static inline void probs_of(int some, const typename N::Item* queries, long stride, int width,
                            const typename N::KPack* packed, int count, RowBias bias, typename N::Item* probs,
                            float* sums) {
    switch (std::min(panels(count) > 1 ? 0 : WIDE, round_up(count, LANES) / LANES)) {
        case 0: probs_of_panels<N>(some, queries, stride, width, packed, count, bias, probs, sums); break;
        case 1: probs_of_panel<N, 1>(some, queries, stride, width, packed, bias, probs, sums); break;
        case 2: probs_of_panel<N, 2>(some, queries, stride, width, packed, bias, probs, sums); break;
        case 3: probs_of_panel < N, WIDE<3 ? WIDE : 3>(some, queries, stride, width, packed, bias, probs, sums); break;
        default: probs_of_panel<N, WIDE>(some, queries, stride, width, packed, bias, probs, sums); break;
    }
    if (!std::all_of(sums, sums + some, within_reach))
        probs_below_max<N>(some, queries, stride, width, packed, count, bias, probs, sums);
}

// probs V for BLOCK queries and one panel of V vectors of values.
template <class N, int V, class Epilogue>
static inline void mix_panel(const typename N::Item* probs, int keys, const typename N::KPack* panel, int steps,
                             Epilogue&& epilogue) {
    if constexpr (WIDE > 2 && V <= 2) {
        microkernel<N, BLOCK, V>(probs, keys, panel, steps, panel, epilogue);
    } else {
        microkernel<N, TILE, V>(probs, keys, panel, steps, panel, epilogue);
        microkernel<N, TILE, V>(probs + TILE * keys, keys, panel, steps, panel,
                                [&](int r, int v, Vec sum) { epilogue(TILE + r, v, sum); });
    }
}

// probs V for `some` of BLOCK queries and all values; rows of the others are ignored. A panel of V has `depth` k-steps,
// of which the first `steps` are read.
template <class N, class Epilogue>
static inline void mix_first(int some, const typename N::Item* probs, int keys, const typename N::KPack* packed,
                             int depth, int steps, int width, Epilogue&& epilogue) {
    for (int p = 0; p < panels(width); p++) {
        const typename N::KPack* panel = packed + (size_t)p * PANEL * depth;
        auto emit = [&](int r, int v, Vec sum) {
            if (r < some) epilogue(r, p * PANEL + v * LANES, sum);
        };
        switch (std::min(WIDE, (width - p * PANEL + LANES - 1) / LANES)) {
            case 1: mix_panel<N, 1>(probs, keys, panel, steps, emit); break;
            case 2: mix_panel<N, 2>(probs, keys, panel, steps, emit); break;
            case 3: mix_panel < N, WIDE<3 ? WIDE : 3>(probs, keys, panel, steps, emit); break;
            default: mix_panel<N, WIDE>(probs, keys, panel, steps, emit); break;
        }
    }
}

// The same for all k-steps.
template <class N, class Epilogue>
static inline void mix(int some, const typename N::Item* probs, int keys, const typename N::KPack* packed, int steps,
                       int width, Epilogue&& epilogue) {
    mix_first<N>(some, probs, keys, packed, steps, steps, width, epilogue);
}

// Packed keys and values of one head, valid until the next head of this thread.
template <class N>
struct PackedKV {
    int count, width, steps;  // keys, head_dim, and k-steps along the keys
    const typename N::KPack *keys, *values;

    PackedKV(int count, int width, RowView<const typename N::Item> from, RowView<const typename N::Item> what)
        : count(count), width(width) {
        typedef typename N::KPack KPack;
        const int held = N::AMX ? round_up(count, LANES) : count;  // AMX needs a fixed number of k-steps
        steps = round_up(held, N::K_STEP) / N::K_STEP;
        KPack* packed_keys = scratch<KPack>(0, (size_t)round_up(count, PANEL) * width);
        KPack* packed_values = scratch<KPack>(1, (size_t)round_up(width, PANEL) * steps * N::K_STEP);
        pack_keys<N>(count, width, [&](int j) { return from.of(j); }, packed_keys);
        pack_values<N>(
            held, width, [&](int j) { return j < count ? what.of(j) : nothing<typename N::Item>(width); },
            packed_values);
        keys = packed_keys, values = packed_values;
    }
};

// Weights of the values, made in place from the unnormalised probabilities of a query: those themselves. Returns the
// factor of the weighted sum.
struct SoftmaxWeights {
    template <class N>
    float operator()(typename N::Item*, int, int, float sum) const {
        return 1.0f / sum;
    }
};

// content_gate softmax(scores) + positions, with positions given: their softmax, times its gate.
template <class Item>
struct GatedWeights {
    const Item* positions;  // (queries, round_up(keys, LANES)), zero for padding keys
    float content_gate;

    template <class N>
    float operator()(Item* probs, int keys, int query, float sum) const {
        const Vec factor = broadcast(content_gate / sum);
        const Item* position = positions + (size_t)query * keys;
        for (int j = 0; j < keys; j += LANES) N::write(probs + j, N::read(probs + j) * factor + N::read(position + j));
        return 1;
    }
};

#if defined(HAS_AMX)
namespace amx {

// The same probabilities for one query with given scores; returns the row sum.
template <class N>
static inline float probs_of_scores(const float* scores, int keys, const float* bias, typename N::Item* probs) {
    auto sum_below = [&](auto&& score) {
        Vec sum = Vec{};
        for (int j = 0; j < keys; j += LANES) {
            const Vec prob = N::exponential(score(j));
            sum += prob;
            N::write(probs + j, prob);
        }
        return add_up(sum);
    };
    auto score = [&](int j) { return load(scores + j) + load(bias + j); };
    const float sum = sum_below(score);
    if (within_reach(sum)) return sum;
    Vec most = broadcast(-1e30f);
    for (int j = 0; j < keys; j += LANES) most = max(most, score(j));
    const float row_max = top(most);
    return sum_below([&](int j) { return score(j) - row_max; });
}

// `attend_queries` below with both GEMMs on AMX, 16 queries at a time.
template <class N, class Weights>
static void attend_queries(const PackedKV<N>& kv, int count, RowView<const typename N::Item> queries, RowBias bias,
                           RowView<typename N::Item> answers, const Weights& weights) {
    typedef typename N::Item Item;
    const int keys = round_up(kv.count, LANES), width = kv.width, high = std::min(SIDE, count);
    const Steps along_head(width / N::K_STEP), along_keys(kv.steps);
    const Shape sums = {high, BYTES}, values = {along_keys.at_once, BYTES}, words = {along_head.at_once, BYTES};
    const Registers registers(
        {sums, sums, values, values, {high, 4 * along_head.at_once}, {high, 4 * along_keys.at_once}, words, words});
    float* scores = scratch<float>(2, (size_t)SIDE * std::max(keys, 2 * SIDE));
    Item* probs = scratch<Item>(3, (size_t)SIDE * keys);
    const Squares squares(count);
    for (int square = 0; square < squares.count; square++) {
        const int first = squares.first(square), fresh = squares.fresh(square);
        const Operand asked = rows_of(queries.of(first), queries.stride, along_head);
        for (int j = 0; j < keys; j += 2 * SIDE)
            multiply_to<N, 4, 6>(asked, columns_of(kv.keys, along_head, kv.count, j), along_head.times(), keys - j,
                                 scores + j, keys);
        float whole[SIDE];
        for (int r = fresh; r < high; r++) {
            const float* addends = bias.at + (first + r) * bias.stride;
            const float sum = probs_of_scores<N>(scores + r * keys, keys, addends, probs + r * keys);
            whole[r] = weights.template operator()<N>(probs + r * keys, keys, first + r, sum);
        }
        for (int c = 0; c < width; c += 2 * SIDE) {
            const int wide = std::min(2 * SIDE, round_up(width - c, LANES));
            multiply_to<N, 5, 2>(rows_of(probs, keys, along_keys), columns_of(kv.values, along_keys, width, c),
                                 along_keys.times(), wide, scores, wide);
            for (int r = fresh; r < high; r++)
                for (int v = 0; v < wide; v += LANES)
                    store_partial<N>(answers.of(first + r) + c + v, load(scores + r * wide + v) * whole[r],
                                     width - c - v);
        }
    }
}

}  // namespace amx
#endif

// softmax(q k^T + bias) v for each query, already scaled.
// `bias` is (queries, round_up(keys, LANES)), with -1e30 for padding keys, or one row for all queries. `weights` may
// change the softmax. Force-inlined: 8 % faster than a call.
template <class N, class Weights = SoftmaxWeights>
static IN_REGISTERS void attend_queries(const PackedKV<N>& kv, int count, RowView<const typename N::Item> queries,
                                        RowBias bias, RowView<typename N::Item> answers, const Weights& weights = {}) {
    typedef typename N::Item Item;
    const int keys = round_up(kv.count, LANES), width = kv.width, steps = kv.steps;
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::use_amx(count, width / N::K_STEP))
            return amx::attend_queries<N>(kv, count, queries, bias, answers, weights);
    }
#endif
    Item* probs = scratch<Item>(3, (size_t)BLOCK * keys);
    for (int first = 0; first < count; first += BLOCK) {
        const int some = std::min(BLOCK, count - first);
        float whole[BLOCK];
        for (int r = 0; r < some; r += TILE, bias.at += TILE * bias.stride)
            probs_of<N>(std::min(TILE, some - r), queries.of(first + r), queries.stride, width, kv.keys, kv.count, bias,
                        probs + (size_t)r * keys, whole + r);
        for (int r = 0; r < some; r++)
            whole[r] = weights.template operator()<N>(probs + (size_t)r * keys, keys, first + r, whole[r]);
        Item* to = answers.of(first);
        mix<N>(some, probs, keys, kv.values, steps, width, [&](int r, int c, Vec sum) {
            store_partial<N>(to + r * answers.stride + c, sum * whole[r], width - c);
        });
    }
}

// Causal attention of one head: query i of `count` sees the keys 0 to i, whose panels alone are multiplied. `slope` is
// `count` times 0, then at least as often -1e30: the bias of query i starts at its element count - 1 - i.
template <class N>
static void attend_causally(const PackedKV<N>& kv, int count, RowView<const typename N::Item> queries,
                            const float* slope, RowView<typename N::Item> answers) {
    typedef typename N::Item Item;
    const RowBias all = {slope + count - 1, -1};
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::use_amx(count, kv.width / N::K_STEP)) {
            return amx::attend_queries<N>(kv, count, queries, all, answers, SoftmaxWeights());
        }
    }
#endif
    Item* probs = scratch<Item>(3, (size_t)BLOCK * round_up(count, LANES));
    for (int first = 0; first < count; first += BLOCK) {
        const int some = std::min(BLOCK, count - first), seen = std::min(count, round_up(first + some, PANEL));
        const int keys = round_up(seen, LANES), steps = seen == count ? kv.steps : seen / N::K_STEP;
        float whole[BLOCK];
        for (int r = 0; r < some; r += TILE)
            probs_of<N>(std::min(TILE, some - r), queries.of(first + r), queries.stride, kv.width, kv.keys, seen,
                        {all.at - first - r, -1}, probs + (size_t)r * keys, whole + r);
        for (int r = 0; r < some; r++) whole[r] = 1.0f / whole[r];
        Item* to = answers.of(first);
        mix_first<N>(some, probs, keys, kv.values, kv.steps, steps, kv.width, [&](int r, int c, Vec sum) {
            store_partial<N>(to + r * answers.stride + c, sum * whole[r], kv.width - c);
        });
    }
}

// Softmax attention of `count` queries to keys that come in segments: the largest score so far, the sum of e^(score -
// largest), and the sum of the values with these weights. A larger score scales the sums down ("Online normalizer
// calculation for softmax", Milakov and Gimelshein, 2018, algorithm 3).
template <class N>
struct SegmentedRows {
    typedef typename N::Item Item;
    const int count, width, wide;
    RowView<const Item> queries;
    float *most, *sums, *mixed;  // (count), (count), (count, wide)

    SegmentedRows(int count, int width, RowView<const Item> queries)
        : count(count), width(width), wide(round_up(width, LANES)), queries(queries) {
        most = scratch<float>(7, (size_t)count * (wide + 2));
        sums = most + count, mixed = sums + count;
        std::fill(most, most + count, -1e30f);
        std::fill(sums, mixed + (size_t)count * wide, 0.0f);
    }

    // `bias` is 0 for the keys of the segment, and -1e30 for padding.
    void add(const PackedKV<N>& kv, const float* bias) {
        const int keys = round_up(kv.count, LANES);
        float* scores = scratch<float>(2, (size_t)BLOCK * keys);
        Item* probs = scratch<Item>(3, (size_t)BLOCK * keys);
        for (int first = 0; first < count; first += BLOCK) {
            const int some = std::min(BLOCK, count - first);
            Vec tops[BLOCK];
            float factors[BLOCK];
            for (int r = 0; r < some; r++) tops[r] = broadcast(most[first + r]);
            gemm<N>(queries.of(first), queries.stride, some, kv.keys, width, kv.count, 0, panels(kv.count),
                    [&](int r, int j, Vec score) {
                        score += load(bias + j);
                        tops[r] = max(tops[r], score);
                        store(scores + r * keys + j, score);
                    });
            for (int r = 0; r < some; r++) {
                const float row_max = top(tops[r]);
                factors[r] = std::exp(most[first + r] - row_max);
                most[first + r] = row_max;
                Vec sum = Vec{};
                for (int j = 0; j < keys; j += LANES) {
                    const Vec prob = N::exponential(load(scores + r * keys + j) - row_max);
                    sum += prob;
                    N::write(probs + r * keys + j, prob);
                }
                sums[first + r] = sums[first + r] * factors[r] + add_up(sum);
            }
            float* to = mixed + (size_t)first * wide;
            mix<N>(some, probs, keys, kv.values, kv.steps, width, [&](int r, int c, Vec sum) {
                store(to + r * wide + c, load(to + r * wide + c) * factors[r] + sum);
            });
        }
    }

    void store_to(RowView<Item> answers) const {
        for (int r = 0; r < count; r++)
            for (int c = 0; c < width; c += LANES)
                store_partial<N>(answers.of(r) + c, load(mixed + (size_t)r * wide + c) * (1.0f / sums[r]), width - c);
    }
};

// Self-attention within one group: `rows` has the queries, with keys and values at offsets `part` and 2 `part`.
template <class N, class Weights = SoftmaxWeights>
static void attend(int count, int width, RowView<const typename N::Item> rows, int part, RowBias bias,
                   RowView<typename N::Item> answers, const Weights& weights = {}) {
    const PackedKV<N> kv(count, width, {rows.at + part, rows.stride}, {rows.at + 2 * part, rows.stride});
    attend_queries<N>(kv, count, rows, bias, answers, weights);
}
