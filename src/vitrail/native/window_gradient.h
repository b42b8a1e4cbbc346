// Softmax attention of one head over one group of tokens, and its gradient, without a map that outlives the group.
//
// Everything stands on its side: scores (keys, queries), so that all that belongs to a query (peak, sum, pull) is one
// lane, and shares are ready for the products over queries. What is needed of the way there comes from two numbers a
// query: the largest score, and one over the sum of the exponentials.

#pragma once

#include "packing.h"
#include "shares.h"

// Rows of a product that are held in registers with V vectors of columns.
constexpr int rows_beside(int vectors) { return LANES == 16 && vectors <= 2 ? 10 : 5; }

template <class N, int V, class Row, class Finish>
static inline void strip(int count, Row&& row, long apart, const typename N::Word* panel, int steps, Finish&& finish) {
    constexpr int R = rows_beside(V);
    for (int first = 0; first < count; first += R) {
        const int some = std::min(R, count - first);
        const typename N::Item* rows[R];
        for (int r = 0; r < R; r++) rows[r] = row(first + std::min(r, some - 1));  // beyond the last: the last again
        Lanes sum[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = Lanes{};
        const typename N::Word* columns = panel;
        for (long k = 0; k < steps * apart; k += apart, columns += V * LANES) {
            for (int r = 0; r < R; r++) {
                typename N::Word word;
                std::memcpy(&word, rows[r] + k, sizeof(word));
                for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], word, columns + v * LANES);
            }
        }
        for (int r = 0; r < R; r++)
            if (r < some)
                for (int v = 0; v < V; v++) finish(first + r, v * LANES, sum[r][v]);
    }
}

// `count` rows times packed columns, `steps` Words along both; `row(r)` gives the first Word of a row, and the next ones
// lie `apart` Items apart. `finish(row, column, sums)` as in products.h.
template <class N, class Row, class Finish>
static inline void product_of_rows(int count, Row&& row, long apart, const typename N::Word* packed, int steps,
                                   int outputs, Finish&& finish) {
    for (int p = 0; p * PANEL < outputs; p++) {
        const typename N::Word* panel = packed + (size_t)p * PANEL * steps;
        auto put = [&](int r, int c, Lanes sum) { finish(r, p * PANEL + c, sum); };
        switch (std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES)) {
            case 1: strip<N, 1>(count, row, apart, panel, steps, put); break;
            case 2: strip<N, 2>(count, row, apart, panel, steps, put); break;
            case 3: strip<N, WIDE < 3 ? WIDE : 3>(count, row, apart, panel, steps, put); break;
            default: strip<N, WIDE>(count, row, apart, panel, steps, put); break;
        }
    }
}

// Words out of rows: step by step along `count` rows of `line` numbers. A last step that is not full ends with zeros.
template <class N>
static inline void weave(const typename N::Item* rows, int count, int line, typename N::Word* to) {
    const typename N::Item* zeros = nothing<typename N::Item>(line);
    for (int k = 0; k < count; k += N::STEP, to += line) {
        const typename N::Item* pair[N::STEP];
        for (int s = 0; s < N::STEP; s++) pair[s] = k + s < count ? rows + (size_t)(k + s) * line : zeros;
        for (int c = 0; c < line; c += LANES) N::interleave(pair, c, to + c);
    }
}

// One head of one group: how many tokens, how wide the head, what the products of queries and keys are multiplied by,
// and what is added to them, (count, round_up(count, LANES)), key first, or null.
struct Meeting {
    int count, width;
    float scale;
    const float* bias;

    int line() const { return round_up(count, LANES); }
};

// Scores (keys, queries) of a meeting. `token(part, j)` gives token j's queries (0), keys (1) or values (2).
template <class N, class Token>
static inline void score(const Meeting& m, Token&& token, float* scores) {
    const int line = m.line();
    typename N::Word* queries = scratch<typename N::Word>(4, (size_t)line * m.width);
    pack_keys<N>(m.count, m.width, [&](int i) { return token(0, i); }, queries);
    product_of_rows<N>(m.count, [&](int j) { return token(1, j); }, N::STEP, queries, m.width / N::STEP, m.count,
                       [&](int j, int i, Lanes sum) {
                           sum *= m.scale;
                           if (m.bias != nullptr) sum += load(m.bias + (size_t)j * line + i);
                           store(scores + (size_t)j * line + i, sum);
                       });
}

// Turn scores into the exponentials of their distance to the peak. `peaks` gets two lines: peaks, and one over sums.
template <class N>
static inline void exponentials(const Meeting& m, const float* scores, typename N::Item* shares, float* peaks) {
    const int line = m.line();
    for (int i = 0; i < line; i += LANES) {
        Lanes most = load(scores + i), sum = Lanes{};
        for (int j = 1; j < m.count; j++) most = largest(most, load(scores + (size_t)j * line + i));
        for (int j = 0; j < m.count; j++) {
            const Lanes share = share_of<N>(load(scores + (size_t)j * line + i) - most);
            sum += share;
            N::write(shares + (size_t)j * line + i, share);
        }
        store(peaks + i, most);
        store(peaks + line + i, 1.0f / sum);
    }
}

// Mix the values of a meeting; `out(i)` is where the answer of token i goes, or null for padding.
template <class N, class Token, class Out>
static void meet(const Meeting& m, Token&& token, float* peaks, Out&& out) {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    const int line = m.line(), steps = round_up(m.count, N::STEP) / N::STEP;
    float* scores = scratch<float>(0, (size_t)m.count * line);
    Item* shares = scratch<Item>(2, (size_t)m.count * line);
    Word* pairs = scratch<Word>(6, (size_t)steps * line);
    Word* values = scratch<Word>(5, (size_t)steps * round_up(m.width, LANES));
    score<N>(m, token, scores);
    exponentials<N>(m, scores, shares, peaks);
    weave<N>(shares, m.count, line, pairs);
    pack_values<N>(m.count, m.width, [&](int j) { return token(2, j); }, values);
    product_of_rows<N>(m.count, [&](int i) { return (const Item*)(pairs + i); }, (long)line * N::STEP, values, steps,
                       m.width, [&](int i, int c, Lanes sum) {
                           Item* to = out(i);
                           if (to != nullptr) put<N>(to + c, sum * peaks[line + i], m.width - c);
                       });
}

// Shares anew from the scores, and the gradient of the scores in their place:
//   share = e^(score - peak) / sum,  pull = sum over keys of share * into_share,  into_score = share * (into_share - pull)
// `total`, which is added to, or null, is the gradient of the bias.
template <class N>
static inline void unroll(const Meeting& m, const float* peaks, float* scores, const float* into_shares,
                          typename N::Item* shares, typename N::Item* into_scores, float* total) {
    const int line = m.line();
    for (int i = 0; i < line; i += LANES) {
        const Lanes peak = load(peaks + i), whole = load(peaks + line + i);
        Lanes pull = Lanes{};
        for (size_t at = i; at < (size_t)m.count * line; at += line) {
            const Lanes share = share_of<N>(load(scores + at) - peak) * whole;
            pull += share * load(into_shares + at);
            store(scores + at, share);
            N::write(shares + at, share);
        }
        for (size_t at = i; at < (size_t)m.count * line; at += line) {
            const Lanes into = load(scores + at) * (load(into_shares + at) - pull);
            N::write(into_scores + at, into);
            if (total != nullptr) store(total + at, load(total + at) + into);
        }
    }
}

// The gradient of a meeting. `answer(i)` gives the gradient of token i's answer; `into(part, j, column, sums)` takes
// the gradients of token j's queries, keys and values.
template <class N, class Token, class Answer, class Into>
static void part(const Meeting& m, Token&& token, Answer&& answer, const float* peaks, float* total, Into&& into) {
    typedef typename N::Item Item;
    typedef typename N::Word Word;
    const int line = m.line(), steps = round_up(m.count, N::STEP) / N::STEP;
    const size_t map = (size_t)m.count * line, packed = (size_t)steps * round_up(m.width, LANES);
    float *scores = scratch<float>(0, map), *into_shares = scratch<float>(1, map);
    Item *shares = scratch<Item>(2, map), *into_scores = scratch<Item>(3, map);
    score<N>(m, token, scores);

    Word* answers = scratch<Word>(7, (size_t)line * m.width);
    pack_keys<N>(m.count, m.width, answer, answers);
    product_of_rows<N>(m.count, [&](int j) { return token(2, j); }, N::STEP, answers, m.width / N::STEP, m.count,
                       [&](int j, int i, Lanes sum) { store(into_shares + (size_t)j * line + i, sum); });
    unroll<N>(m, peaks, scores, into_shares, shares, into_scores, total);

    Word* columns = scratch<Word>(5, packed);
    pack_values<N>(m.count, m.width, answer, columns);
    product_of_rows<N>(m.count, [&](int j) { return shares + (size_t)j * line; }, N::STEP, columns, steps, m.width,
                       [&](int j, int c, Lanes sum) { into(2, j, c, sum); });
    pack_values<N>(m.count, m.width, [&](int i) { return token(0, i); }, columns);
    product_of_rows<N>(m.count, [&](int j) { return into_scores + (size_t)j * line; }, N::STEP, columns, steps, m.width,
                       [&](int j, int c, Lanes sum) { into(1, j, c, sum * m.scale); });
    Word* pairs = scratch<Word>(6, (size_t)steps * line);
    weave<N>(into_scores, m.count, line, pairs);
    pack_values<N>(m.count, m.width, [&](int j) { return token(1, j); }, columns);
    product_of_rows<N>(m.count, [&](int i) { return (const Item*)(pairs + i); }, (long)line * N::STEP, columns, steps,
                       m.width, [&](int i, int c, Lanes sum) { into(0, i, c, sum * m.scale); });
}
