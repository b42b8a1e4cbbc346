// Softmax attention of one head over one group of tokens, forward and backward; attention weights are recomputed per
// group.
//
// Scores are transposed, (keys, queries), so that the statistics of a query (row_max, sum, row_dot) are one lane, and
// probabilities have the layout of the GEMMs over queries. Two values per query are saved: the row max, and one over
// the sum of exponentials.

#pragma once

#include "packing.h"
#include "softmax_backward.h"

// Rows of the microkernel for V vectors of columns.
constexpr int rows_beside(int vectors) { return LANES == 16 && vectors <= 2 ? 10 : 5; }

template <class N, int V, class Row, class Epilogue>
static inline void strip(int count, Row&& row, long apart, const typename N::KPack* panel, int steps,
                         Epilogue&& epilogue) {
    constexpr int R = rows_beside(V);
    for (int first = 0; first < count; first += R) {
        const int some = std::min(R, count - first);
        const typename N::Item* rows[R];
        for (int r = 0; r < R; r++) rows[r] = row(first + std::min(r, some - 1));  // past the end: repeat the last row
        Vec sum[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = Vec{};
        const typename N::KPack* columns = panel;
        for (long k = 0; k < steps * apart; k += apart, columns += V * LANES) {
            for (int r = 0; r < R; r++) {
                typename N::KPack word;
                std::memcpy(&word, rows[r] + k, sizeof(word));
                for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], word, columns + v * LANES);
            }
        }
        for (int r = 0; r < R; r++)
            if (r < some)
                for (int v = 0; v < V; v++) epilogue(first + r, v * LANES, sum[r][v]);
    }
}

// GEMM of `count` rows and packed columns over `steps` KPacks; `row(r)` returns the first KPack of a row, the next ones
// follow with stride `apart` Items. `epilogue(row, column, sums)` as in gemm.h.
template <class N, class Row, class Epilogue>
static inline void gemm_of_rows(int count, Row&& row, long apart, const typename N::KPack* packed, int steps,
                                int outputs, Epilogue&& epilogue) {
    for (int p = 0; p * PANEL < outputs; p++) {
        const typename N::KPack* panel = packed + (size_t)p * PANEL * steps;
        auto emit = [&](int r, int c, Vec sum) { epilogue(r, p * PANEL + c, sum); };
        switch (std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES)) {
            case 1: strip<N, 1>(count, row, apart, panel, steps, emit); break;
            case 2: strip<N, 2>(count, row, apart, panel, steps, emit); break;
            case 3: strip < N, WIDE<3 ? WIDE : 3>(count, row, apart, panel, steps, emit); break;
            default: strip<N, WIDE>(count, row, apart, panel, steps, emit); break;
        }
    }
}

// Pack `count` rows of `line` values, k-major over rows; a partial last k-step is zero-padded.
template <class N>
static inline void pack_transposed(const typename N::Item* rows, int count, int line, typename N::KPack* to) {
    const typename N::Item* zeros = nothing<typename N::Item>(line);
    for (int k = 0; k < count; k += N::K_STEP, to += line) {
        const typename N::Item* pair[N::K_STEP];
        for (int s = 0; s < N::K_STEP; s++) pair[s] = k + s < count ? rows + (size_t)(k + s) * line : zeros;
        for (int c = 0; c < line; c += LANES) N::interleave(pair, c, to + c);
    }
}

// One head of one group: number of tokens, head_dim, scale of the scores, and bias plus mask, key-major, (count,
// round_up(count, LANES)), or null.
struct GroupHead {
    int count, width;
    float scale;
    const float* bias;

    int line() const { return round_up(count, LANES); }
};

// Scores (keys, queries) of one head. `token(part, j)` returns queries (0), keys (1) or values (2) of token j.
template <class N, class Token>
static inline void score(const GroupHead& m, Token&& token, float* scores) {
    const int line = m.line();
    typename N::KPack* queries = scratch<typename N::KPack>(4, (size_t)line * m.width);
    pack_keys<N>(m.count, m.width, [&](int i) { return token(0, i); }, queries);
    gemm_of_rows<N>(
        m.count, [&](int j) { return token(1, j); }, N::K_STEP, queries, m.width / N::K_STEP, m.count,
        [&](int j, int i, Vec sum) {
            sum *= m.scale;
            if (m.bias != nullptr) sum += load(m.bias + (size_t)j * line + i);
            store(scores + (size_t)j * line + i, sum);
        });
}

// exp(score - row_max). `row_stats` gets two lines: row_max, and one over the row sum.
template <class N>
static inline void exponentials(const GroupHead& m, const float* scores, typename N::Item* probs, float* row_stats) {
    const int line = m.line();
    for (int i = 0; i < line; i += LANES) {
        Vec most = load(scores + i), sum = Vec{};
        for (int j = 1; j < m.count; j++) most = max(most, load(scores + (size_t)j * line + i));
        for (int j = 0; j < m.count; j++) {
            const Vec prob = prob_of<N>(load(scores + (size_t)j * line + i) - most);
            sum += prob;
            N::write(probs + (size_t)j * line + i, prob);
        }
        store(row_stats + i, most);
        store(row_stats + line + i, 1.0f / sum);
    }
}

// Attention of one head; `out(i)` is the destination of the output of token i, or null for padding.
template <class N, class Token, class Out>
static void group_attention(const GroupHead& m, Token&& token, float* row_stats, Out&& out) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const int line = m.line(), steps = round_up(m.count, N::K_STEP) / N::K_STEP;
    float* scores = scratch<float>(0, (size_t)m.count * line);
    Item* probs = scratch<Item>(2, (size_t)m.count * line);
    KPack* pairs = scratch<KPack>(6, (size_t)steps * line);
    KPack* values = scratch<KPack>(5, (size_t)steps * round_up(m.width, LANES));
    score<N>(m, token, scores);
    exponentials<N>(m, scores, probs, row_stats);
    pack_transposed<N>(probs, m.count, line, pairs);
    pack_values<N>(m.count, m.width, [&](int j) { return token(2, j); }, values);
    gemm_of_rows<N>(
        m.count, [&](int i) { return (const Item*)(pairs + i); }, (long)line * N::K_STEP, values, steps, m.width,
        [&](int i, int c, Vec sum) {
            Item* to = out(i);
            if (to != nullptr) store_partial<N>(to + c, sum * row_stats[line + i], m.width - c);
        });
}

// Softmax backward, from scores S and dP to probabilities P and dS:
//   P = exp(S - row_max) / sum,  row_dot = sum over keys of P * dP,  dS = P * (dP - row_dot)
// `total` is the gradient of the bias, accumulated, or null.
template <class N>
static inline void unroll(const GroupHead& m, const float* row_stats, float* scores, const float* grad_shares,
                          typename N::Item* probs, typename N::Item* grad_scores, float* total) {
    const int line = m.line();
    for (int i = 0; i < line; i += LANES) {
        const Vec row_max = load(row_stats + i), whole = load(row_stats + line + i);
        Vec row_dot = Vec{};
        for (size_t at = i; at < (size_t)m.count * line; at += line) {
            const Vec prob = prob_of<N>(load(scores + at) - row_max) * whole;
            row_dot += prob * load(grad_shares + at);
            store(scores + at, prob);
            N::write(probs + at, prob);
        }
        for (size_t at = i; at < (size_t)m.count * line; at += line) {
            const Vec into = load(scores + at) * (load(grad_shares + at) - row_dot);
            N::write(grad_scores + at, into);
            if (total != nullptr) store(total + at, load(total + at) + into);
        }
    }
}

// Backward pass of one head. `answer(i)` returns the output gradient of token i; `into(part, j, column, sums)` gets the
// gradients of queries, keys and values of token j.
template <class N, class Token, class Answer, class Into>
static void part(const GroupHead& m, Token&& token, Answer&& answer, const float* row_stats, float* total,
                 Into&& into) {
    typedef typename N::Item Item;
    typedef typename N::KPack KPack;
    const int line = m.line(), steps = round_up(m.count, N::K_STEP) / N::K_STEP;
    const size_t map = (size_t)m.count * line, packed = (size_t)steps * round_up(m.width, LANES);
    float *scores = scratch<float>(0, map), *grad_shares = scratch<float>(1, map);
    Item *probs = scratch<Item>(2, map), *grad_scores = scratch<Item>(3, map);
    score<N>(m, token, scores);

    KPack* answers = scratch<KPack>(7, (size_t)line * m.width);
    pack_keys<N>(m.count, m.width, answer, answers);
    gemm_of_rows<N>(
        m.count, [&](int j) { return token(2, j); }, N::K_STEP, answers, m.width / N::K_STEP, m.count,
        [&](int j, int i, Vec sum) { store(grad_shares + (size_t)j * line + i, sum); });
    unroll<N>(m, row_stats, scores, grad_shares, probs, grad_scores, total);

    KPack* columns = scratch<KPack>(5, packed);
    pack_values<N>(m.count, m.width, answer, columns);
    gemm_of_rows<N>(
        m.count, [&](int j) { return probs + (size_t)j * line; }, N::K_STEP, columns, steps, m.width,
        [&](int j, int c, Vec sum) { into(2, j, c, sum); });
    pack_values<N>(m.count, m.width, [&](int i) { return token(0, i); }, columns);
    gemm_of_rows<N>(
        m.count, [&](int j) { return grad_scores + (size_t)j * line; }, N::K_STEP, columns, steps, m.width,
        [&](int j, int c, Vec sum) { into(1, j, c, sum * m.scale); });
    KPack* pairs = scratch<KPack>(6, (size_t)steps * line);
    pack_transposed<N>(grad_scores, m.count, line, pairs);
    pack_values<N>(m.count, m.width, [&](int j) { return token(1, j); }, columns);
    gemm_of_rows<N>(
        m.count, [&](int i) { return (const Item*)(pairs + i); }, (long)line * N::K_STEP, columns, steps, m.width,
        [&](int i, int c, Vec sum) { into(0, i, c, sum * m.scale); });
}
