// Softmax attention of one head along a strip of keys: each block of queries attends to a run of the strip.
//
// A strip is a few columns of the map, row-major. The neighbours of a query are in a few whole rows of it, a contiguous
// run. So keys and values are packed once per strip, and a block is multiplied with its run only.

#pragma once

#include "arguments.h"
#include "layers.h"
#include "packing.h"

struct Block {
    int32_t query, count, key;  // first query, number of queries (up to ROWS), and offset of the run in the strip
};

struct QuerySlot {
    int32_t token, bias;  // token index and bias row of a query
};

// Tiling of a map: strips of keys, blocks of queries. Strip s has the keys from keys[starts[2 s]] on and the blocks
// from blocks[starts[2 s + 1]] on.
struct StripPlan {
    const int32_t* starts;
    const int32_t* keys;  // token index of each key; -1 is padding
    const Block* blocks;
    const QuerySlot* seats;
    int strips, longest, run;
};

// Arguments of a `StripPlan`.
struct StripsArgs {
    const int32_t* starts;  // (strips + 1, 2)
    const int32_t* keys;
    const int32_t* blocks;  // (blocks, 3)
    const int32_t* seats;   // (queries, 2)
    int strips, longest, run;
};

static inline StripPlan strip_plan(const StripsArgs& a) {
    return {a.starts, a.keys, (const Block*)a.blocks, (const QuerySlot*)a.seats, a.strips, a.longest, a.run};
}

// Arguments of queries, keys and values (batch, tokens, heads, width), with strides over images, tokens and heads.
struct NeighborhoodArgs {
    const void* q;
    const void* k;
    const void* v;
    int64_t strides[9];   // three each of q, k and v
    const void* padding;  // (2, heads, width): key and value of padding; or null
    int batch, tokens, heads, width;
    float scale;  // of the scores
    StripsArgs strips;
    const float* bias;  // (heads, lines, run in whole vectors)
    int lines;
};

// Queries, keys or values: strides over images, cells and heads.
template <class N>
struct Cells {
    const typename N::Item* at;
    const int64_t* strides;
    const typename N::Item* padding;  // (heads, width)

    const typename N::Item* of(long image, long head, long cell, int width) const {
        if (cell < 0) return padding + head * width;
        return at + image * strides[0] + cell * strides[1] + head * strides[2];
    }
};

// Touch the rows of a strip's cells in sequence, so that many cache misses overlap; interleaved with packing they do
// not, and software prefetches do not help.
template <class N>
static inline void visit(const Cells<N>* parts, int count, long image, long head, const int32_t* cells, int keys,
                         int width) {
    for (size_t at = 0; at < width * sizeof(typename N::Item); at += 64)
        for (int j = 0; j < keys; j++) {
            if (cells[j] < 0) continue;
            for (int part = 0; part < count; part++)
                (void)*((volatile const char*)parts[part].of(image, head, cells[j], width) + at);
        }
}

// Packed keys and values of one head in a strip. Keys: one line of `room` words per KPack of the head. Values: one line
// per panel of the head and K_STEP keys.
template <class N>
struct Strip {
    const typename N::KPack* keys;
    int room;
    const typename N::KPack* values;
    int steps;
};

// Microkernel: R rows times V vectors of columns, with stride `line` words between k-steps.
template <class N, int R, int V, class Epilogue>
static inline void cross(const typename N::Item* const* rows, const typename N::KPack* columns, long line, int steps,
                         Epilogue&& epilogue) {
    typedef typename N::KPack KPack;
    constexpr int CHAINS = R * V <= 8 ? 2 : 1;  // with few accumulators, hide the latency of FMA
    Vec sum[CHAINS][R][V];
    for (auto& chain : sum)
        for (auto& row : chain)
            for (auto& s : row) s = Vec{};
    auto step = [&](int k, int chain) {
        const KPack* at = columns + k * line;
        for (int r = 0; r < R; r++) {
            KPack word;
            std::memcpy(&word, rows[r] + (long)k * N::K_STEP, sizeof(word));
            for (int v = 0; v < V; v++) sum[chain][r][v] = N::add_product(sum[chain][r][v], word, at + v * LANES);
        }
    };
    int k = 0;
    for (; k + CHAINS <= steps; k += CHAINS)
        for (int chain = 0; chain < CHAINS; chain++) step(k + chain, chain);
    if (k < steps) step(k, 0);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) epilogue(r, v, CHAINS == 1 ? sum[0][r][v] : sum[0][r][v] + sum[CHAINS - 1][r][v]);
}

template <class N, int R, class Epilogue>
static inline void cross_some(int vectors, const typename N::Item* const* rows, const typename N::KPack* columns,
                              long line, int steps, Epilogue&& epilogue) {
    switch (vectors) {
        case 1: return cross<N, R, 1>(rows, columns, line, steps, epilogue);
        case 2: return cross<N, R, 2>(rows, columns, line, steps, epilogue);
        case 3: return cross < N, R, WIDE<3 ? WIDE : 3>(rows, columns, line, steps, epilogue);
        default: return cross<N, R, WIDE>(rows, columns, line, steps, epilogue);
    }
}

// Line length: the keys of a strip and the overread of a run, as an odd number of vectors, so that lines do not map to
// the same cache sets.
static inline int room_for(int keys) { return (((keys + LANES - 1) / LANES + 1) | 1) * LANES; }

// Pack keys, one line per KPack of the head; `row(j)` returns key j.
template <class N, class Row>
static inline void pack_lines(int count, int width, Row&& row, typename N::KPack* to, int room) {
    typedef typename N::KPack KPack;
    const int steps = width / N::K_STEP;
    const typename N::Item* zeros = nothing<typename N::Item>(width);
    for (int j = 0; j < room; j += LANES) {
        const typename N::Item* rows[LANES];
        for (int i = 0; i < LANES; i++) rows[i] = j + i < count ? row(j + i) : zeros;
        int k = 0;
        for (; k + LANES <= steps; k += LANES) {
            VecU32 square[LANES];
            for (int i = 0; i < LANES; i++) std::memcpy(&square[i], rows[i] + k * N::K_STEP, sizeof(VecU32));
            transpose(square);
            for (int i = 0; i < LANES; i++) std::memcpy(to + (size_t)(k + i) * room + j, &square[i], sizeof(VecU32));
        }
        for (; k < steps; k++)
            for (int i = 0; i < LANES; i++)
                std::memcpy(to + (size_t)k * room + j + i, rows[i] + k * N::K_STEP, sizeof(KPack));
    }
}

// Products of R rows (queries or output gradients) with a run of packed lines: `epilogue(row, key, sums)`.
template <class N, int R, class Epilogue>
static inline void meet_run(const typename N::Item* const* rows, const typename N::KPack* lines, int room, int keys,
                            int width, Epilogue&& epilogue) {
    for (int j = 0; j < keys; j += PANEL)
        cross_some<N, R>(std::min(WIDE, (keys - j) / LANES), rows, lines + j, room, width / N::K_STEP,
                         [&](int r, int v, Vec sum) { epilogue(r, j + v * LANES, sum); });
}

// probs V for R rows and the values of a run, times a factor per row: `out[r]` gets `width` values. Values are packed
// by K_STEP; if a run starts within a k-step, its probabilities start with a zero.
template <class N, int R>
static inline void mix_run(const typename N::Item* const* probs, const float* factors, const typename N::KPack* values,
                           int all_steps, int key, int run, int width, typename N::Item* const* out) {
    const int steps = (key % N::K_STEP + run + N::K_STEP - 1) / N::K_STEP;
    for (int first = 0; first < width; first += PANEL) {
        const int wide = std::min(PANEL, round_up(width - first, LANES));
        const typename N::KPack* at = values + (size_t)first * all_steps + (size_t)(key / N::K_STEP) * wide;
        cross_some<N, R>(wide / LANES, probs, at, wide, steps, [&](int r, int v, Vec sum) {
            const int c = first + v * LANES;
            store_partial<N>(out[r] + c, sum * factors[r], width - c);
        });
    }
}

// Attention of R queries to a run of keys: `out[r]` gets `width` values.
// `bias[r]`: bias of each key of the run, padded to whole vectors.
template <class N, int R>
static inline void attend_run(const typename N::Item* const* queries, const float* const* bias, float scale,
                              const Strip<N>& strip, int key, int run, int width, typename N::Item* const* out) {
    typedef typename N::Item Item;
    const int keys = round_up(run, LANES), odd = key % N::K_STEP;
    const long line = keys + LANES;  // with space for the leading zero of a run that starts within a k-step
    float* scores = scratch<float>(2, (size_t)ROWS * keys);
    Item* probs = scratch<Item>(3, (size_t)ROWS * line);
    meet_run<N, R>(queries, strip.keys + key, strip.room, keys, width,
                   [&](int r, int j, Vec sum) { store(scores + r * keys + j, sum * scale + load(bias[r] + j)); });
    float whole[R];
    const Item* rows[R];
    for (int r = 0; r < R; r++) {
        float* score = scores + r * keys;
        Vec most = load(score), sum = Vec{};
        for (int j = LANES; j < keys; j += LANES) most = max(most, load(score + j));
        const float row_max = top(most);
        Item* prob = probs + r * line;
        rows[r] = prob;
        prob[0] = 0;
        for (int j = 0; j < keys; j += LANES) {
            const Vec e = N::exponential(load(score + j) - row_max);
            sum += e;
            N::write(prob + odd + j, e);
        }
        whole[r] = 1.0f / add_up(sum);
    }
    mix_run<N, R>(rows, whole, strip.values, strip.steps, key, run, width, out);
}

template <class N>
static inline void attend_run(int count, const typename N::Item* const* queries, const float* const* bias, float scale,
                              const Strip<N>& strip, int key, int run, int width, typename N::Item* const* out) {
    switch (count) {
        case 1: return attend_run<N, 1>(queries, bias, scale, strip, key, run, width, out);
        case 2: return attend_run<N, 2>(queries, bias, scale, strip, key, run, width, out);
        case 3: return attend_run<N, 3>(queries, bias, scale, strip, key, run, width, out);
        case 4: return attend_run<N, 4>(queries, bias, scale, strip, key, run, width, out);
        case 5: return attend_run<N, 5>(queries, bias, scale, strip, key, run, width, out);
        default: return attend_run<N, ROWS>(queries, bias, scale, strip, key, run, width, out);
    }
}
