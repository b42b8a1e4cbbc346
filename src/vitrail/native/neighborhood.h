// Softmax attention of one head along a strip of keys: each block of queries attends to a run of the strip.
//
// A strip is a column of cells, some cells wide, row after row. A query's neighbours lie in a few whole rows of it,
// which are one run. So keys and values are packed once for a strip, and no block multiplies more than its run.

#pragma once

#include "layers.h"
#include "packing.h"

struct Block {
    int32_t query, count, key;  // its first query, how many (up to ROWS), and where its run begins in the strip
};

struct QuerySlot {
    int32_t token, bias;  // where a query lies, and which row of the bias is its own
};

// How the cells of a map meet: strips of keys, blocks of queries. Strip s has the keys from keys[starts[2 s]] on and
// the blocks from blocks[starts[2 s + 1]] on.
struct StripPlan {
    const int32_t* starts;
    const int32_t* keys;  // where each key lies; -1 is padding
    const Block* blocks;
    const QuerySlot* seats;
    int strips, longest, run;
};

// Queries, keys or values: numbers from image to image, cell to cell and head to head.
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

// Read the lines of a strip's cells once, one right after the other: memory answers many at a time then, as it does not
// while each is packed before the next, nor for words of prefetching.
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

// Keys and values of one head in a strip, packed. Keys: for each KPack of the head one line of `room` words. Values:
// for each panel of the head and each K_STEP keys one line.
template <class N>
struct Strip {
    const typename N::KPack* keys;
    int room;
    const typename N::KPack* values;
    int steps;
};

// The sums of R rows with V vectors of columns, `line` words from step to step.
template <class N, int R, int V, class Epilogue>
static inline void cross(const typename N::Item* const* rows, const typename N::KPack* columns, long line, int steps,
                         Epilogue&& epilogue) {
    typedef typename N::KPack KPack;
    constexpr int CHAINS = R * V <= 8 ? 2 : 1;  // so few sums would wait for each other
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
        case 3: return cross<N, R, WIDE < 3 ? WIDE : 3>(rows, columns, line, steps, epilogue);
        default: return cross<N, R, WIDE>(rows, columns, line, steps, epilogue);
    }
}

// Room for the keys of a strip and for what a run may read beyond them. An odd number of vectors, so that lines do not
// all fall on the same places of the cache.
static inline int room_for(int keys) { return (((keys + LANES - 1) / LANES + 1) | 1) * LANES; }

// Keys in one line for each KPack of the head; `row(j)` gives the numbers of key j.
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

// Scores of R queries, or whatever their rows hold, with a run of keys that lie in lines: `finish(row, key, sums)`.
template <class N, int R, class Epilogue>
static inline void meet_run(const typename N::Item* const* rows, const typename N::KPack* lines, int room, int keys,
                            int width, Epilogue&& epilogue) {
    for (int j = 0; j < keys; j += PANEL)
        cross_some<N, R>(std::min(WIDE, (keys - j) / LANES), rows, lines + j, room, width / N::K_STEP,
                         [&](int r, int v, Vec sum) { epilogue(r, j + v * LANES, sum); });
}

// Values of a run mixed by R rows of shares, times a factor each: `out[r]` gets `width` numbers. Values come K_STEP at
// a time; where a run begins within such a step, the shares begin with a zero.
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

// Shares of R queries over a run of keys, then their values mixed: `out[r]` gets `width` numbers.
// `bias[r]`: an addend for each key of the run, in whole vectors.
template <class N, int R>
static inline void attend_run(const typename N::Item* const* queries, const float* const* bias, float scale,
                              const Strip<N>& strip, int key, int run, int width, typename N::Item* const* out) {
    typedef typename N::Item Item;
    const int keys = round_up(run, LANES), odd = key % N::K_STEP;
    const long line = keys + LANES;  // room for the zero before shares that begin within a step
    float* scores = scratch<float>(2, (size_t)ROWS * keys);
    Item* probs = scratch<Item>(3, (size_t)ROWS * line);
    meet_run<N, R>(queries, strip.keys + key, strip.room, keys, width, [&](int r, int j, Vec sum) {
        store(scores + r * keys + j, sum * scale + load(bias[r] + j));
    });
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
