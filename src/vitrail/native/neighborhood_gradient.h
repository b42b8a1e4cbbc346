// Backward pass of neighborhood attention along a strip of keys; attention weights are recomputed per strip.
//
// Scores, dP and dQ are computed block by block, as in the forward pass. dK and dV are sums over queries. Queries are
// sorted by run, so those that attend to one row of a strip are consecutive, and dK and dV of a row are one GEMM with
// accumulators in registers. It runs as soon as the last query that attends to the row is done, so few probabilities
// have to stay in cache.

#pragma once

#include "neighborhood.h"
#include "softmax_backward.h"

// Growing buffer, reused and aligned to a cache line.
template <class T>
struct GrowBuffer {
    std::vector<T> held;

    T* of(size_t items) {
        constexpr size_t line = 64;
        if (held.size() < items + line) held.resize(items + line);
        return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(held.data()) + line - 1) / line * line);
    }
};

// Per-thread workspace for a strip.
template <class N>
struct Workspace {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    GrowBuffer<KPack> keys, values, columns, queries, grad_out, probs, grad_scores;
    GrowBuffer<Item> prob_rows, grad_score_rows;
    GrowBuffer<float> scores, grad_shares, grad_keys, grad_values;
    GrowBuffer<int> runs;

    static Workspace& mine() {
        static thread_local Workspace workspace;
        return workspace;
    }
};

// One head of one image: queries, keys, values, output gradients, and destinations of the gradients.
template <class N>
struct Head {
    Workspace<N>* workspace;
    const Cells<N>* cells;
    long image, head;
    int width, tokens;
    float scale;
    const float* bias;
    float* total;                    // gradient of the bias, accumulated, or null
    typename N::Item* into;          // dQ of the first cell
    long row;                        // stride over cells
    float *grad_keys, *grad_values;  // (tokens + 1, line()), accumulated; the last row is for padding

    const typename N::Item* of(int part, long cell) const { return cells[part].of(image, head, cell, width); }
    int line() const { return round_up(width, LANES); }
};

// Ring buffer of rows, one per query with one value per key of its run, zero-padded on both sides; small enough to stay
// in cache.
template <class N>
struct RowRing {
    typename N::Item* at;
    int most;              // capacity in rows, a power of two
    int front, run, back;  // lengths of leading zeros, keys and trailing zeros, whole vectors each

    typename N::Item* of(int query) const { return at + (size_t)(query & (most - 1)) * (front + run + back) + front; }
    typename N::Item* begin(int query) const {
        typename N::Item* row = of(query);
        for (int j = -front; j < 0; j += LANES) N::write(row + j, Vec{});
        for (int j = run; j < run + back; j += LANES) N::write(row + j, Vec{});
        row[0] = 0;
        return row;
    }
};

// Softmax backward of one query, from scores S and dP to probabilities P and dS:
//   P = exp(S - row_max) / sum,  row_dot = sum over keys of P * dP,  dS = P * (dP - row_dot)
// `total` is the gradient of the bias, accumulated, or null.
template <class N>
static inline void unroll(int keys, float* score, const float* grad_share, typename N::Item* prob,
                          typename N::Item* grad_score, float* total) {
    Vec most = load(score), sum = Vec{}, grad_scores = Vec{};
    for (int j = LANES; j < keys; j += LANES) most = max(most, load(score + j));
    const float row_max = top(most);
    for (int j = 0; j < keys; j += LANES) {
        const Vec e = prob_of<N>(load(score + j) - row_max);
        sum += e;
        grad_scores += e * load(grad_share + j);
        store(score + j, e);
    }
    const float whole = 1.0f / add_up(sum), row_dot = add_up(grad_scores) * whole;
    for (int j = 0; j < keys; j += LANES) {
        const Vec part = load(score + j) * whole, into = part * (load(grad_share + j) - row_dot);
        N::write(prob + j, part);
        N::write(grad_score + j, into);
        if (total != nullptr) store(total + j, load(total + j) + into);
    }
}

// dQ of a block of queries, and their rows of P and dS. `first` is the block's first query within the strip. `strip`
// has keys in both layouts, `values` has values in lines.
template <class N, int R>
static inline void part_block(const Head<N>& h, const StripPlan& m, const Block& block, int first,
                              const Strip<N>& strip, const typename N::KPack* values, const RowRing<N>& probs,
                              const RowRing<N>& grad_scores) {
    typedef typename N::Item Item;
    const int keys = round_up(m.run, LANES), odd = block.key % N::K_STEP;
    float *scores = h.workspace->scores.of(R * keys), *grad_shares = h.workspace->grad_shares.of(R * keys);
    const QuerySlot* seats = m.seats + block.query;
    const Item *queries[R], *answers[R], *rows[R];
    Item* into[R];
    float factors[R];
    for (int r = 0; r < R; r++) {
        queries[r] = h.of(0, seats[r].token);
        answers[r] = h.of(3, seats[r].token);
        into[r] = h.into + seats[r].token * h.row;
        factors[r] = h.scale;
    }
    meet_run<N, R>(queries, strip.keys + block.key, strip.room, keys, h.width, [&](int r, int j, Vec sum) {
        store(scores + r * keys + j, sum * h.scale + load(h.bias + (size_t)seats[r].bias * keys + j));
    });
    meet_run<N, R>(answers, values + block.key, strip.room, keys, h.width,
                   [&](int r, int j, Vec sum) { store(grad_shares + r * keys + j, sum); });
    for (int r = 0; r < R; r++) {
        float* total = h.total == nullptr ? nullptr : h.total + (size_t)seats[r].bias * keys;
        Item* row = grad_scores.begin(first + r);
        rows[r] = row;
        unroll<N>(keys, scores + r * keys, grad_shares + r * keys, probs.begin(first + r), row + odd, total);
    }
    mix_run<N, R>(rows, factors, strip.values, strip.steps, block.key, m.run, h.width, into);
}

template <class N, int R = ROWS, class... Rest>
static inline void part_block(int count, const Rest&... rest) {
    if (count == R) return part_block<N, R>(rest...);
    if constexpr (R > 1) part_block<N, R - 1>(count, rest...);
}

// Rows of a RowRing packed for a GEMM over queries: KPacks of K_STEP consecutive queries, one per key from the start of
// the first query's run. Also a ring buffer, of groups.
template <class N>
struct PackedGroups {
    typename N::KPack* at;
    int most;  // groups, a power of two
    int length;

    typename N::KPack* of(int group) const { return at + (long)(group & (most - 1)) * length; }
};

// Pack a group of K_STEP queries; those from `queries` on are zero. `odd`: rows are offset by one if their runs start
// at odd positions.
template <class N>
static inline void pack_group(const RowRing<N>& rows, const int* runs, int group, int queries, bool odd,
                              const PackedGroups<N>& to) {
    const typename N::Item* row[N::K_STEP];
    const int first = group * N::K_STEP;
    for (int s = 0; s < N::K_STEP; s++) {
        const int i = first + s;
        row[s] = i < queries ? rows.of(i) + (odd ? runs[i] % N::K_STEP : 0) - (runs[i] - runs[first])
                             : nothing<typename N::Item>(to.length);
    }
    typename N::KPack* words = to.of(group);
    for (int j = 0; j < to.length; j += LANES) N::interleave(row, j, words + j);
}

// dK or dV contribution of query groups `first` to `last` to a row of keys, from position `key` of the strip on. Key r
// is cell `cells[r]`, or padding, with the line after the last cell; accumulates into `into` (cells, whole vectors).
template <class N>
struct DkvBlock {
    PackedGroups<N> packed;
    const typename N::KPack* columns;  // packed dO or Q of the queries
    float* into;
};

template <class N, int R, int V>
static inline void gather(const DkvBlock<N>& dkv, const int* runs, int first, int last, long key, const int32_t* cells,
                          int tokens, int line, int start, int groups) {
    const typename N::KPack* column = dkv.columns + (size_t)start * groups + first * V * LANES;
    Vec sum[R][V];
    for (auto& row : sum)
        for (auto& s : row) s = Vec{};
    for (int g = first; g < last; g++, column += V * LANES) {
        const typename N::KPack* words = dkv.packed.of(g) + (key - runs[g * N::K_STEP]);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], words[r], column + v * LANES);
    }
    for (int r = 0; r < R; r++) {
        float* to = dkv.into + (long)(cells[r] < 0 ? tokens : cells[r]) * line + start;
        for (int v = 0; v < V; v++) store(to + v * LANES, load(to + v * LANES) + sum[r][v]);
    }
}

constexpr int most_keys(int vectors) { return vectors <= 2 && LANES == 16 ? 10 : 5; }

template <class N, int V, int R = most_keys(V), class... Rest>
static inline void gather_some(int count, const Rest&... rest) {
    if (count == R) return gather<N, R, V>(rest...);
    if constexpr (R > 1) gather_some<N, V, R - 1>(count, rest...);
}

template <class N>
static inline void gather_row(const DkvBlock<N>& dkv, const int* runs, int first, int last, int key,
                              const int32_t* cells, int side, int tokens, int line, int groups) {
    for (int start = 0; start < line; start += PANEL) {
        const int vectors = std::min(WIDE, (line - start) / LANES), most = most_keys(vectors);
        const int parts = (side + most - 1) / most;
        for (int part = 0; part < parts; part++) {
            const int from = side * part / parts, count = side * (part + 1) / parts - from;
            auto run = [&](auto which) {
                gather_some<N, which.value>(count, dkv, runs, first, last, (long)key + from, cells + from, tokens, line,
                                            start, groups);
            };
            switch (vectors) {
                case 1: run(std::integral_constant<int, 1>()); break;
                case 2: run(std::integral_constant<int, 2>()); break;
                case 3: run(std::integral_constant < int, WIDE<3 ? WIDE : 3>()); break;
                default: run(std::integral_constant<int, WIDE>()); break;
            }
        }
    }
}

// Ring capacity for a strip, a power of two: the queries that attend to a row of keys, those of the next run, and the
// rest of a group.
static inline int most_at_once(const StripPlan& m, int strip) {
    int most = 0, held = 0, last = m.starts[2 * strip + 1];
    for (int first = last; first < m.starts[2 * strip + 3]; first++) {
        for (; last < m.starts[2 * strip + 3] && m.blocks[last].key <= m.blocks[first].key + m.run; last++)
            held += m.blocks[last].count;
        most = std::max(most, held);
        held -= m.blocks[first].count;
    }
    int room = 4;
    while (room < most + 2) room *= 2;
    return room;
}

// All gradients of a strip with rows of `side` keys.
template <class N>
static void part_strip(const Head<N>& h, const StripPlan& m, int side, int strip) {
    typedef typename N::KPack KPack;
    constexpr int K_STEP = N::K_STEP;
    const int32_t *starts = m.starts + 2 * strip, *cells = m.keys + starts[0];
    if (starts[1] == starts[3]) return;  // no queries
    Workspace<N>& workspace = *h.workspace;
    const Block &first_block = m.blocks[starts[1]], &last_block = m.blocks[starts[3] - 1];
    const int count = starts[2] - starts[0], room = room_for(count), steps = round_up(count, K_STEP) / K_STEP;
    const int queries = last_block.query + last_block.count - first_block.query,
              groups = (queries + K_STEP - 1) / K_STEP;
    const QuerySlot* seats = m.seats + first_block.query;

    KPack *keys = workspace.keys.of((size_t)room * h.width / K_STEP),
          *values = workspace.values.of((size_t)room * h.width / K_STEP);
    KPack* columns = workspace.columns.of((size_t)steps * h.line());
    visit<N>(h.cells, 4, h.image, h.head, cells, count, h.width);
    pack_lines<N>(count, h.width, [&](int j) { return h.of(1, cells[j]); }, keys, room);
    pack_lines<N>(count, h.width, [&](int j) { return h.of(2, cells[j]); }, values, room);
    pack_values<N>(count, h.width, [&](int j) { return h.of(1, cells[j]); }, columns);
    const Strip<N> packed = {keys, room, columns, steps};
    KPack *packed_queries = workspace.queries.of((size_t)groups * h.line()),
          *packed_grad_out = workspace.grad_out.of((size_t)groups * h.line());
    pack_values<N>(queries, h.width, [&](int i) { return h.of(0, seats[i].token); }, packed_queries);
    pack_values<N>(queries, h.width, [&](int i) { return h.of(3, seats[i].token); }, packed_grad_out);

    const int front = round_up(side, LANES), keys_of_run = round_up(m.run, LANES), most = most_at_once(m, strip);
    const int length = round_up(m.run + (K_STEP - 1) * side, LANES), back = length + LANES - keys_of_run;
    const size_t rows = (size_t)most * (front + keys_of_run + back), words = (size_t)most / K_STEP * length;
    const RowRing<N> probs = {workspace.prob_rows.of(rows), most, front, keys_of_run, back};
    const RowRing<N> grad_scores = {workspace.grad_score_rows.of(rows), most, front, keys_of_run, back};
    const DkvBlock<N> to_values = {{workspace.probs.of(words), most / K_STEP, length}, packed_grad_out, h.grad_values};
    const DkvBlock<N> to_keys = {{workspace.grad_scores.of(words), most / K_STEP, length}, packed_queries, h.grad_keys};
    int* runs = workspace.runs.of(queries);

    int block = starts[1], done = 0, packed_count = 0, first = 0;
    auto ask = [&](int key) {
        for (; block < starts[3] && m.blocks[block].key == key; block++) {
            const Block& b = m.blocks[block];
            for (int r = 0; r < b.count; r++) runs[done + r] = key;
            part_block<N>((int)b.count, h, m, b, done, packed, values, probs, grad_scores);
            done += b.count;
        }
    };
    ask(0);
    for (int key = 0; key < count; key += side) {
        const int last = (done + K_STEP - 1) / K_STEP;
        ask(key + side);  // before packing rows just written, to avoid store-forwarding stalls
        for (; packed_count < last; packed_count++) {
            pack_group<N>(probs, runs, packed_count, done, false, to_values.packed);
            pack_group<N>(grad_scores, runs, packed_count, done, true, to_keys.packed);
        }
        while (first < last && runs[std::min(first * K_STEP + K_STEP, done) - 1] + m.run <= key) first++;
        gather_row<N>(to_values, runs, first, last, key, cells + key, side, h.tokens, h.line(), groups);
        gather_row<N>(to_keys, runs, first, last, key, cells + key, side, h.tokens, h.line(), groups);
    }
}
