// The gradient of softmax attention along a strip of keys, without a map that outlives the strip.
//
// Scores, the gradients of shares and those of queries go block by block, as the forward pass does. Those of keys and values
// are sums over queries. Queries are in the order of their runs, so those that meet one row of a strip follow each other,
// and what a row of keys gets is one product whose sums stay in registers. It is taken as soon as the last query that
// meets the row is done, so little of the shares has to stay in cache.

#pragma once

#include "neighborhood.h"
#include "shares.h"

// Memory that grows and is kept, and begins with a line of the cache.
template <class T>
struct Kept {
    std::vector<T> held;

    T* of(size_t items) {
        constexpr size_t line = 64;
        if (held.size() < items + line) held.resize(items + line);
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(held.data()) + line - 1) / line * line);
    }
};

// What a thread has on hand while it goes through a strip.
template <class N>
struct Desk {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    Kept<Word> keys, values, columns, queries, answers, shares, pulls;
    Kept<Item> share_rows, pull_rows;
    Kept<float> scores, into_shares, into_keys, into_values;
    Kept<int> runs;

    static Desk& mine() {
        static thread_local Desk desk;
        return desk;
    }
};

// One head of one picture: its queries, keys, values and the gradients of its answers, and where theirs go.
template <class N>
struct Head {
    const Cells<N>* cells;
    long picture, head;
    int width, tokens;
    float scale;
    const float* bias;
    float* total;                      // the gradient of the bias, which is added to, or null
    typename N::Item* into;            // of the first cell's queries
    long row;                          // numbers from one cell's to the next's
    float *into_keys, *into_values;    // (tokens + 1, line()), which are added to; the last is padding's

    const typename N::Item* of(int part, long cell) const { return cells[part].of(picture, head, cell, width); }
    int line() const { return round_up(width, LANES); }
};

// A row of numbers for each query, one for each key of its run, between zeros.
template <class N>
struct Rows {
    typename N::Item* at;
    int front, run, back;  // places of zeros before, of keys, and of zeros behind, all whole vectors

    static size_t room(int front, int run, int back) { return front + run + back; }
    typename N::Item* of(int query) const { return at + (size_t)query * (front + run + back) + front; }
    typename N::Item* begin(int query) const {
        typename N::Item* row = of(query);
        for (int j = -front; j < 0; j += LANES) N::write(row + j, Lanes{});
        for (int j = run; j < run + back; j += LANES) N::write(row + j, Lanes{});
        row[0] = 0;
        return row;
    }
};

// From scores and the gradients of shares to shares and the gradients of scores, a query at a time:
//   share = e^(score - peak) / sum,  pull = sum over keys of share * into_share,  into_score = share * (into_share - pull)
// `total`, which is added to, or null, is the gradient of the bias.
template <class N>
static inline void unroll(int keys, float* score, const float* into_share, typename N::Item* share,
                          typename N::Item* into_score, float* total) {
    Lanes most = load(score), sum = Lanes{}, pulls = Lanes{};
    for (int j = LANES; j < keys; j += LANES) most = largest(most, load(score + j));
    const float peak = top(most);
    for (int j = 0; j < keys; j += LANES) {
        const Lanes e = share_of<N>(load(score + j) - peak);
        sum += e;
        pulls += e * load(into_share + j);
        store(score + j, e);
    }
    const float whole = 1.0f / add_up(sum), pull = add_up(pulls) * whole;
    for (int j = 0; j < keys; j += LANES) {
        const Lanes part = load(score + j) * whole, into = part * (load(into_share + j) - pull);
        N::write(share + j, part);
        N::write(into_score + j, into);
        if (total != nullptr) store(total + j, load(total + j) + into);
    }
}

// The queries of a block: their gradients, and their rows of shares and of gradients of scores. `first` is the block's
// first query within the strip. `strip` holds keys in both layouts, `values` values in lines.
template <class N, int R>
static inline void part_block(const Head<N>& h, const Meeting& m, const Block& block, int first, const Strip<N>& strip,
                              const typename N::Word* values, const Rows<N>& shares, const Rows<N>& pulls) {
    typedef typename N::Item Item;
    const int keys = round_up(m.run, LANES), odd = block.key % N::STEP;
    float *scores = Desk<N>::mine().scores.of(R * keys), *into_shares = Desk<N>::mine().into_shares.of(R * keys);
    const Seat* seats = m.seats + block.query;
    const Item *queries[R], *answers[R], *rows[R];
    Item* into[R];
    float factors[R];
    for (int r = 0; r < R; r++) {
        queries[r] = h.of(0, seats[r].token);
        answers[r] = h.of(3, seats[r].token);
        into[r] = h.into + seats[r].token * h.row;
        factors[r] = h.scale;
    }
    meet_run<N, R>(queries, strip.keys + block.key, strip.room, keys, h.width, [&](int r, int j, Lanes sum) {
        store(scores + r * keys + j, sum * h.scale + load(h.bias + (size_t)seats[r].bias * keys + j));
    });
    meet_run<N, R>(answers, values + block.key, strip.room, keys, h.width,
                   [&](int r, int j, Lanes sum) { store(into_shares + r * keys + j, sum); });
    for (int r = 0; r < R; r++) {
        float* total = h.total == nullptr ? nullptr : h.total + (size_t)seats[r].bias * keys;
        Item* row = pulls.begin(first + r);
        rows[r] = row;
        unroll<N>(keys, scores + r * keys, into_shares + r * keys, shares.begin(first + r), row + odd, total);
    }
    mix_run<N, R>(rows, factors, strip.values, strip.steps, block.key, m.run, h.width, into);
}

template <class N, int R = ROWS, class... Rest>
static inline void part_block(int count, const Rest&... rest) {
    if (count == R) return part_block<N, R>(rest...);
    if constexpr (R > 1) part_block<N, R - 1>(count, rest...);
}

// Rows of STEP queries that follow each other, woven into Words: one for each key from the first one's run on.
// `runs`: where in the strip the run of each query begins; `shift`: places that rows begin after their first key.
template <class N>
static inline void weave_runs(const Rows<N>& rows, const int* runs, int first, int queries, bool shifted, int length,
                              typename N::Word* to) {
    const typename N::Item* row[N::STEP];
    for (int s = 0; s < N::STEP; s++) {
        const int i = first + s;
        row[s] = i < queries ? rows.of(i) + (shifted ? runs[i] % N::STEP : 0) - (runs[i] - runs[first])
                             : nothing<typename N::Item>(length);
    }
    for (int j = 0; j < length; j += LANES) N::interleave(row, j, to + j);
}

// Sums over queries, STEP at a time from `first` to `last`, for R keys and V vectors of a head:
// what a query has of the key, in `woven`, times what `columns` have of the query.
template <class N, int R, int V, class Finish>
static inline void gather(const typename N::Word* woven, int length, const int* runs, int first, int last, long key,
                          const typename N::Word* columns, Finish&& finish) {
    Lanes sum[R][V];
    for (auto& row : sum)
        for (auto& s : row) s = Lanes{};
    for (int q = first; q < last; q++) {
        const typename N::Word *words = woven + (long)q * length + (key - runs[q * N::STEP]), *at = columns + q * V * LANES;
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], words[r], at + v * LANES);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) finish(r, v, sum[r][v]);
}

template <class N, int V, int R = V <= 2 && LANES == 16 ? 10 : 5, class... Rest>
static inline void gather_some(int count, Rest&&... rest) {
    if (count == R) return gather<N, R, V>(rest...);
    if constexpr (R > 1) gather_some<N, V, R - 1>(count, rest...);
}

// What queries give to a row of keys, from place `key` of the strip on: `into` (cells, whole vectors) is added to.
template <class N>
static inline void gather_row(const Head<N>& h, const int32_t* cells, int side, const typename N::Word* woven, int length,
                              const int* runs, int first, int last, int key, const typename N::Word* columns, int steps,
                              float* into) {
    const int line = h.line();
    for (int start = 0; start < line; start += PANEL) {
        const int vectors = std::min(WIDE, (line - start) / LANES), most = vectors <= 2 && LANES == 16 ? 10 : 5;
        const typename N::Word* panel = columns + (size_t)start * steps;
        const int parts = (side + most - 1) / most;
        for (int part = 0; part < parts; part++) {
            const int from = side * part / parts, count = side * (part + 1) / parts - from;
            auto add = [&](int r, int v, Lanes sum) {
                const int cell = cells[from + r];
                float* to = into + (size_t)(cell < 0 ? h.tokens : cell) * line + start + v * LANES;
                store(to, load(to) + sum);
            };
            const long place = key + from;
            switch (vectors) {
                case 1: gather_some<N, 1>(count, woven, length, runs, first, last, place, panel, add); break;
                case 2: gather_some<N, 2>(count, woven, length, runs, first, last, place, panel, add); break;
                case 3: gather_some<N, WIDE < 3 ? WIDE : 3>(count, woven, length, runs, first, last, place, panel, add); break;
                default: gather_some<N, WIDE>(count, woven, length, runs, first, last, place, panel, add); break;
            }
        }
    }
}

// All gradients of a strip. Its rows are `side` keys wide.
template <class N>
static void part_strip(const Head<N>& h, const Meeting& m, int side, int strip) {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    constexpr int STEP = N::STEP;
    const int32_t *starts = m.starts + 2 * strip, *cells = m.keys + starts[0];
    if (starts[1] == starts[3]) return;  // nobody asks
    Desk<N>& desk = Desk<N>::mine();
    const Block &first_block = m.blocks[starts[1]], &last_block = m.blocks[starts[3] - 1];
    const int count = starts[2] - starts[0], room = room_for(count), steps = round_up(count, STEP) / STEP;
    const int queries = last_block.query + last_block.count - first_block.query, groups = (queries + STEP - 1) / STEP;
    const Seat* seats = m.seats + first_block.query;

    Word *keys = desk.keys.of((size_t)room * h.width / STEP), *values = desk.values.of((size_t)room * h.width / STEP);
    Word* columns = desk.columns.of((size_t)steps * h.line());
    pack_lines<N>(count, h.width, [&](int j) { return h.of(1, cells[j]); }, keys, room);
    pack_lines<N>(count, h.width, [&](int j) { return h.of(2, cells[j]); }, values, room);
    pack_values<N>(count, h.width, [&](int j) { return h.of(1, cells[j]); }, columns);
    const Strip<N> packed = {keys, room, columns, steps};
    Word *asked = desk.queries.of((size_t)groups * h.line()), *answered = desk.answers.of((size_t)groups * h.line());
    pack_values<N>(queries, h.width, [&](int i) { return h.of(0, seats[i].token); }, asked);
    pack_values<N>(queries, h.width, [&](int i) { return h.of(3, seats[i].token); }, answered);

    const int front = round_up(side, LANES), keys_of_run = round_up(m.run, LANES);
    const int length = round_up(m.run + (STEP - 1) * side, LANES), back = length + LANES - keys_of_run;
    const size_t rows = (size_t)queries * Rows<N>::room(front, keys_of_run, back);
    const Rows<N> shares = {desk.share_rows.of(rows), front, keys_of_run, back};
    const Rows<N> pulls = {desk.pull_rows.of(rows), front, keys_of_run, back};
    Word *woven_shares = desk.shares.of((size_t)groups * length), *woven_pulls = desk.pulls.of((size_t)groups * length);
    int* runs = desk.runs.of(queries);

    int block = starts[1], done = 0, first = 0;
    for (int key = 0; key < count; key += side) {
        const int before = done / STEP;
        for (; block < starts[3] && m.blocks[block].key == key; block++) {
            const Block& b = m.blocks[block];
            for (int r = 0; r < b.count; r++) runs[done + r] = key;
            part_block<N>((int)b.count, h, m, b, done, packed, values, shares, pulls);
            done += b.count;
        }
        const int last = (done + STEP - 1) / STEP;
        for (int q = before; q < last; q++) {  // a query whose next is still to come is woven with zeros, and later again
            weave_runs<N>(shares, runs, q * STEP, done, false, length, woven_shares + (size_t)q * length);
            weave_runs<N>(pulls, runs, q * STEP, done, true, length, woven_pulls + (size_t)q * length);
        }
        while (first < last && runs[std::min(first * STEP + STEP, done) - 1] + m.run <= key) first++;
        gather_row<N>(h, cells + key, side, woven_shares, length, runs, first, last, key, answered, groups, h.into_values);
        gather_row<N>(h, cells + key, side, woven_pulls, length, runs, first, last, key, asked, groups, h.into_keys);
    }
}
