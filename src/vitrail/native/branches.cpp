// What native/branches.py calls: the branches of a block, forward and backward, around an attention or an MLP.

#include "branches.h"

// Weights (outputs, inputs) of precision W as `product` reads them, for y = x W^T, or turned, for y = x W.
template <class W, class N>
static void pack(const void* weights_, int outputs, int inputs, int turned, void* packed_, int threads) {
    const auto* weights = (const typename W::Item*)weights_;
    auto* packed = (typename N::Word*)packed_;
    const int across = turned ? inputs : outputs, steps = (turned ? outputs : inputs) / N::STEP;
#pragma omp parallel for num_threads(threads)
    for (int p = 0; p < panels(across); p++) {
        const int first = p * PANEL, wide = std::min(PANEL, across - first), width = turned ? wide : inputs;
        typename N::Item* row = scratch<typename N::Item>(0, (size_t)LANES * round_up(width, LANES));
        auto converted = [&](int r) {
            typename N::Item* to = row + (size_t)(r % LANES) * round_up(width, LANES);
            const auto* from = turned ? weights + (size_t)r * inputs + first : weights + (size_t)(first + r) * inputs;
            for (int c = 0; c < width; c += LANES) put<N>(to + c, get<W>(from + c, width - c), width - c);
            return (const typename N::Item*)to;
        };
        typename N::Word* to = packed + (size_t)first * steps;
        if (turned) pack_values<N>(outputs, wide, converted, to);
        else pack_keys<N>(wide, inputs, converted, to);
    }
}

// norm(x) of some rows.
template <class X, class N>
static inline const typename N::Item* normed(const Norm<N>& norm, const typename X::Item* x, long first, int count,
                                             float eps) {
    typename N::Item* fresh = scratch<typename N::Item>(0, (size_t)count * norm.depth);
    for (int r = 0; r < count; r++)
        norm.template apply<X>(x + (first + r) * norm.depth, first + r, eps, fresh + (size_t)r * norm.depth);
    return fresh;
}

// y = norm(x) W^T + b
template <class X, class N>
static void enter(const typename X::Item* x, long rows, const Norm<N>& norm, float eps, const Layer<N>& layer,
                  typename N::Item* y, int threads) {
    Chunks(rows, layer.outputs * sizeof(*y), threads).each(threads, [&](long first, int count) {
        layer(normed<X>(norm, x, first, count, eps), count, [&](int r, int c, Lanes sum) {
            put<N>(y + (first + r) * layer.outputs + c, sum, layer.outputs - c);
        });
    });
}

// y = past + keep * (x W^T + b) for some rows.
template <class X, class N>
static inline void leave_rows(const typename N::Item* x, long first, int count, const Layer<N>& layer, const Keep& keep,
                              const typename X::Item* past, typename X::Item* y) {
    const float* factors = keep.of(first, count);
    layer(x, count, [&](int r, int c, Lanes sum) {
        const size_t at = (first + r) * layer.outputs + c;
        const int left = layer.outputs - c;
        put<X>(y + at, get<X>(past + at, left) + factors[r] * sum, left);
    });
}

template <class X, class N>
static void leave(const typename N::Item* x, long rows, const Layer<N>& layer, const Keep& keep,
                  const typename X::Item* past, typename X::Item* y, int threads) {
    Chunks(rows, layer.inputs * sizeof(*x), threads).each(threads, [&](long first, int count) {
        leave_rows<X, N>(x + first * layer.inputs, first, count, layer, keep, past, y);
    });
}

// y = x + keep * (gelu(norm(x) W1^T + b1) W2^T + b2); `hidden`, what GELU is given, is written where it is not null.
template <class X, class N>
static void mlp(const typename X::Item* x, long rows, const Norm<N>& norm, float eps, const Layer<N>& layer1,
                const Layer<N>& layer2, const Keep& keep, typename N::Item* hidden, typename X::Item* y, int threads) {
    typedef typename N::Item Item;
    const int wide = layer1.outputs;
    Chunks(rows, wide * sizeof(Item), threads).each(threads, [&](long first, int count) {
        Item* between = scratch<Item>(1, (size_t)count * wide);
        by_strips<N>(layer1, normed<X>(norm, x, first, count, eps), count, [&](int c, const float* sums) {
            const int left = wide - c;
            const auto run = left >= LANES ? gelu_strip<N, true> : gelu_strip<N, false>;
            run(sums, get<Single>(layer1.bias + c, left), count, wide, left,
                hidden == nullptr ? nullptr : hidden + first * wide + c, between + c);
        });
        leave_rows<X, N>(between, first, count, layer2, keep, x, y);
    });
}

// Both parts of a sum over rows, each `depth` of `wide`.
static void part_sums(const Sums& sums, int depth, int wide, float* one, float* other, int threads) {
    std::vector<float> both(2 * wide);
    sums.add_up(both.data(), threads);
    std::copy_n(both.data(), depth, one);
    std::copy_n(both.data() + wide, depth, other);
}

static void whole_sums(const Sums& sums, int depth, float* to, int threads) {
    std::vector<float> all(sums.size);
    sums.add_up(all.data(), threads);
    std::copy_n(all.data(), depth, to);
}

template <class N>
static Woven<N> room_to_weave(int slot, const Chunks& chunks, int columns) {
    return {scratch<typename N::Word>(slot, Woven<N>::size(chunks.room(), columns)), chunks.room() / N::STEP};
}

// The gradient of `leave`, beside that of `past`: `layer` is W turned, from outputs to inputs.
template <class X, class N>
static void leave_back(const typename X::Item* into_y, long rows, const Keep& keep, const Layer<N>& layer,
                       const typename N::Item* x, typename N::Item* into_x, float* into_weight, float* into_bias,
                       int threads) {
    typedef typename N::Item Item;
    const int outputs = layer.inputs, inputs = layer.outputs;
    const Chunks chunks(rows, inputs * sizeof(Item), threads);
    Sums sums(into_bias, round_up(outputs, LANES), chunks.count);
    const Woven<N> left = room_to_weave<N>(4, chunks, outputs), right = room_to_weave<N>(5, chunks, inputs);
    const std::vector<Gradient<N>> gradients = {{left, right, outputs, inputs, into_weight}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long woven) {
            Item* into = scratch<Item>(0, (size_t)count * outputs);
            scale_rows<X, N>(into_y + first * outputs, count, outputs, keep.of(first, count), into, sums.of(chunk));
            layer(into, count, [&](int r, int c, Lanes sum) { put<N>(into_x + (first + r) * inputs + c, sum, inputs - c); });
            if (into_weight == nullptr) return;
            weave_rows<N>(into, outputs, count, outputs, left, woven / N::STEP);
            weave_rows<N>(x + first * inputs, inputs, count, inputs, right, woven / N::STEP);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::STEP, fresh, threads); });
    whole_sums(sums, outputs, into_bias, threads);
}

// The gradient of `enter`, on top of what comes `past` it.
template <class X, class N>
static void enter_back(const typename N::Item* into_y, long rows, const Layer<N>& layer, const Norm<N>& norm,
                       const typename X::Item* past, typename X::Item* into_x, float* into_weight, float* into_bias,
                       float* into_scale, float* into_shift, int threads) {
    const int outputs = layer.inputs, inputs = layer.outputs, wide = round_up(inputs, LANES);
    const Chunks chunks(rows, outputs * sizeof(*into_y), threads);
    Sums biases(into_bias, round_up(outputs, LANES), chunks.count), norms(into_scale, 2 * wide, chunks.count);
    const Woven<N> left = room_to_weave<N>(4, chunks, outputs), right = room_to_weave<N>(5, chunks, inputs);
    const std::vector<Gradient<N>> gradients = {{left, right, outputs, inputs, into_weight}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long woven) {
            const auto* into = into_y + first * outputs;
            scale_rows<N, N>(into, count, outputs, Keep{nullptr, 1}.of(first, count), nullptr, biases.of(chunk));
            back_through_norm<X, N>(layer, norm, into, first, count, past, into_x, norms.of(chunk));
            if (into_weight == nullptr) return;
            weave_rows<N>(into, outputs, count, outputs, left, woven / N::STEP);
            weave_norm<N>(norm, first, count, right, woven / N::STEP);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::STEP, fresh, threads); });
    whole_sums(biases, outputs, into_bias, threads);
    part_sums(norms, inputs, wide, into_scale, into_shift, threads);
}

// The gradient of `mlp`. `layer2` is W2 turned, from outputs to hidden, `layer1` is W1 turned, from hidden to inputs.
template <class X, class N>
static void mlp_back(const typename X::Item* into_y, long rows, const Keep& keep, const Layer<N>& layer2,
                     const typename N::Item* hidden, const Layer<N>& layer1, const Norm<N>& norm,
                     typename X::Item* into_x, float* into_weight1, float* into_bias1, float* into_weight2,
                     float* into_bias2, float* into_scale, float* into_shift, int threads) {
    typedef typename N::Item Item;
    const int depth = norm.depth, deep = layer1.inputs, wide = round_up(depth, LANES);
    const Chunks chunks(rows, deep * sizeof(Item), threads);
    Sums outer(into_bias2, wide, chunks.count), inner(into_bias1, round_up(deep, LANES), chunks.count);
    Sums norms(into_scale, 2 * wide, chunks.count);
    const Woven<N> normed = room_to_weave<N>(4, chunks, depth), between = room_to_weave<N>(5, chunks, deep);
    const Woven<N> into_answer = room_to_weave<N>(6, chunks, depth), into_hidden = room_to_weave<N>(7, chunks, deep);
    const std::vector<Gradient<N>> gradients = {{into_hidden, normed, deep, depth, into_weight1},
                                                {into_answer, between, depth, deep, into_weight2}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long woven) {
            const long step = woven / N::STEP;
            Item *into = scratch<Item>(0, (size_t)count * depth), *rest = scratch<Item>(1, (size_t)count * deep);
            scale_rows<X, N>(into_y + first * depth, count, depth, keep.of(first, count), into, outer.of(chunk));
            weave_rows<N>(into, depth, count, depth, into_answer, step);
            by_strips<N>(layer2, into, count, [&](int c, const float* sums) {
                const auto run = c + LANES <= deep ? gelu_back_strip<N, true> : gelu_back_strip<N, false>;
                run(hidden + first * deep + c, sums, count, deep, deep - c, rest + c, between.at(c / LANES, step),
                    into_hidden.at(c / LANES, step), inner.of(chunk) + c);
            });
            back_through_norm<X, N>(layer1, norm, rest, first, count, into_y, into_x, norms.of(chunk));
            weave_norm<N>(norm, first, count, normed, step);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::STEP, fresh, threads); });
    whole_sums(outer, depth, into_bias2, threads);
    whole_sums(inner, deep, into_bias1, threads);
    part_sums(norms, depth, wide, into_scale, into_shift, threads);
}

extern "C" {
int vitrail_lanes() { return LANES; }

#define FOR_BOTH(name, X, N)                                                                                           \
    void vitrail_pack_##name(const void* weights, int outputs, int inputs, int turned, void* packed, int threads) {    \
        pack<X, N>(weights, outputs, inputs, turned, packed, threads);                                                 \
    }                                                                                                                  \
    void vitrail_enter_##name(const void* x, long rows, int depth, const float* weight, const float* bias, float eps,  \
                              void* z, float* scale, const void* packed, const float* offset, int outputs, void* y,    \
                              int threads) {                                                                           \
        enter<X, N>((const X::Item*)x, rows, {depth, weight, bias, (N::Item*)z, scale}, eps,                           \
                    {(const N::Word*)packed, offset, depth, outputs}, (N::Item*)y, threads);                           \
    }                                                                                                                  \
    void vitrail_leave_##name(const void* x, long rows, int inputs, const void* packed, const float* offset,           \
                              int outputs, const float* keep, long span, const void* past, void* y, int threads) {     \
        leave<X, N>((const N::Item*)x, rows, {(const N::Word*)packed, offset, inputs, outputs}, {keep, span},          \
                    (const X::Item*)past, (X::Item*)y, threads);                                                       \
    }                                                                                                                  \
    void vitrail_mlp_##name(const void* x, long rows, int depth, const float* weight, const float* bias, float eps,    \
                            void* z, float* scale, const void* packed1, const float* bias1, int hidden,                \
                            const void* packed2, const float* bias2, const float* keep, long span, void* between,      \
                            void* y, int threads) {                                                                    \
        mlp<X, N>((const X::Item*)x, rows, {depth, weight, bias, (N::Item*)z, scale}, eps,                             \
                  {(const N::Word*)packed1, bias1, depth, hidden}, {(const N::Word*)packed2, bias2, hidden, depth},    \
                  {keep, span}, (N::Item*)between, (X::Item*)y, threads);                                              \
    }                                                                                                                  \
    void vitrail_leave_back_##name(const void* into_y, long rows, int outputs, const float* keep, long span,           \
                                   const void* turned, int inputs, const void* x, void* into_x, float* into_weight,    \
                                   float* into_bias, int threads) {                                                    \
        leave_back<X, N>((const X::Item*)into_y, rows, {keep, span},                                                   \
                         {(const N::Word*)turned, nullptr, outputs, inputs}, (const N::Item*)x, (N::Item*)into_x,      \
                         into_weight, into_bias, threads);                                                             \
    }                                                                                                                  \
    void vitrail_enter_back_##name(const void* into_y, long rows, int outputs, const void* turned, int depth,          \
                                   const float* weight, const float* bias, const void* z, const float* scale,          \
                                   const void* past, void* into_x, float* into_weight, float* into_bias,               \
                                   float* into_scale, float* into_shift, int threads) {                                \
        enter_back<X, N>((const N::Item*)into_y, rows, {(const N::Word*)turned, nullptr, outputs, depth},              \
                         {depth, weight, bias, (N::Item*)z, (float*)scale}, (const X::Item*)past, (X::Item*)into_x,    \
                         into_weight, into_bias, into_scale, into_shift, threads);                                     \
    }                                                                                                                  \
    void vitrail_mlp_back_##name(const void* into_y, long rows, int depth, const float* keep, long span,               \
                                 const void* turned2, int hidden, const void* between, const void* turned1,            \
                                 const float* weight, const float* bias, const void* z, const float* scale,            \
                                 void* into_x, float* into_weight1, float* into_bias1, float* into_weight2,            \
                                 float* into_bias2, float* into_scale, float* into_shift, int threads) {               \
        mlp_back<X, N>((const X::Item*)into_y, rows, {keep, span}, {(const N::Word*)turned2, nullptr, depth, hidden},  \
                       (const N::Item*)between, {(const N::Word*)turned1, nullptr, hidden, depth},                     \
                       {depth, weight, bias, (N::Item*)z, (float*)scale}, (X::Item*)into_x, into_weight1, into_bias1,  \
                       into_weight2, into_bias2, into_scale, into_shift, threads);                                     \
    }

FOR_BOTH(float32, Single, Single)
#if defined(__AVX512BF16__)
FOR_BOTH(bfloat16, Brain, Brain)
FOR_BOTH(mixed, Single, Brain)  // the residual, or weights to pack, in fp32, and products in bf16
#endif
}
