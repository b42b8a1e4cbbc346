// Exports for native/fused_train.py: fused residual branches, forward and backward, around attention and for the MLP.

#include "fused_train.h"

// Pack weights (outputs, inputs) of dtype W for the GEMM y = x W^T, or transposed for y = x W.
template <class W, class N>
static void pack(const void* weights_, int outputs, int inputs, int transposed, void* packed_, int threads) {
    const auto* weights = (const typename W::Item*)weights_;
    auto* packed = (typename N::KPack*)packed_;
    const int across = transposed ? inputs : outputs, steps = (transposed ? outputs : inputs) / N::K_STEP;
#pragma omp parallel for num_threads(threads)
    for (int p = 0; p < panels(across); p++) {
        const int first = p * PANEL, wide = std::min(PANEL, across - first), width = transposed ? wide : inputs;
        typename N::Item* row = scratch<typename N::Item>(0, (size_t)LANES * round_up(width, LANES));
        auto converted = [&](int r) {
            typename N::Item* to = row + (size_t)(r % LANES) * round_up(width, LANES);
            const auto* from =
                transposed ? weights + (size_t)r * inputs + first : weights + (size_t)(first + r) * inputs;
            for (int c = 0; c < width; c += LANES)
                store_partial<N>(to + c, load_partial<W>(from + c, width - c), width - c);
            return (const typename N::Item*)to;
        };
        typename N::KPack* to = packed + (size_t)first * steps;
        if (transposed)
            pack_values<N>(outputs, wide, converted, to);
        else
            pack_keys<N>(wide, inputs, converted, to);
    }
}

// norm(x) of a block of rows.
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
static void norm_linear(const typename X::Item* x, long rows, const Norm<N>& norm, float eps, const Layer<N>& layer,
                        typename N::Item* y, int threads) {
    RowBlocks(rows, layer.outputs * sizeof(*y), threads).each(threads, [&](long first, int count) {
        layer(normed<X>(norm, x, first, count, eps), count, [&](int r, int c, Vec sum) {
            store_partial<N>(y + (first + r) * layer.outputs + c, sum, layer.outputs - c);
        });
    });
}

// y = residual + drop_scale * (x W^T + b) of a block of rows.
template <class X, class N>
static inline void linear_residual_rows(const typename N::Item* x, long first, int count, const Layer<N>& layer,
                                        const DropPathScale& drop_scale, const typename X::Item* residual,
                                        typename X::Item* y) {
    const float* factors = drop_scale.of(first, count);
    layer(x, count, [&](int r, int c, Vec sum) {
        const size_t at = (first + r) * layer.outputs + c;
        const int left = layer.outputs - c;
        store_partial<X>(y + at, load_partial<X>(residual + at, left) + factors[r] * sum, left);
    });
}

template <class X, class N>
static void linear_residual(const typename N::Item* x, long rows, const Layer<N>& layer,
                            const DropPathScale& drop_scale, const typename X::Item* residual, typename X::Item* y,
                            int threads) {
    RowBlocks(rows, layer.inputs * sizeof(*x), threads).each(threads, [&](long first, int count) {
        linear_residual_rows<X, N>(x + first * layer.inputs, first, count, layer, drop_scale, residual, y);
    });
}

// y = x + drop_scale * (gelu(norm(x) W1^T + b1) W2^T + b2); the input of GELU is written to `hidden` unless null.
template <class X, class N>
static void mlp(const typename X::Item* x, long rows, const Norm<N>& norm, float eps, const Layer<N>& layer1,
                const Layer<N>& layer2, const DropPathScale& drop_scale, typename N::Item* hidden, typename X::Item* y,
                int threads) {
    typedef typename N::Item Item;
    const int wide = layer1.outputs;
    RowBlocks(rows, wide * sizeof(Item), threads).each(threads, [&](long first, int count) {
        Item* between = scratch<Item>(1, (size_t)count * wide);
        by_strips<N>(layer1, normed<X>(norm, x, first, count, eps), count, [&](int c, const float* sums) {
            const int left = wide - c;
            const auto run = left >= LANES ? gelu_strip<N, true> : gelu_strip<N, false>;
            run(sums, load_partial<Float32>(layer1.bias + c, left), count, wide, left,
                hidden == nullptr ? nullptr : hidden + first * wide + c, between + c);
        });
        linear_residual_rows<X, N>(between, first, count, layer2, drop_scale, x, y);
    });
}

// Both parts of a sum over rows: `depth` values each, with stride `wide`.
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
static Packed<N> room_to_weave(int slot, const RowBlocks& chunks, int columns) {
    return {scratch<typename N::KPack>(slot, Packed<N>::size(chunks.room(), columns)), chunks.room() / N::K_STEP};
}

// Backward of `linear_residual`, except for the residual: `layer` is W transposed, from outputs to inputs.
template <class X, class N>
static void linear_residual_backward(const typename X::Item* grad_y, long rows, const DropPathScale& drop_scale,
                                     const Layer<N>& layer, const typename N::Item* x, typename N::Item* grad_x,
                                     float* grad_weight, float* grad_bias, int threads) {
    typedef typename N::Item Item;
    const int outputs = layer.inputs, inputs = layer.outputs;
    const RowBlocks chunks(rows, inputs * sizeof(Item), threads);
    Sums sums(grad_bias, round_up(outputs, LANES), chunks.count);
    const Packed<N> left = room_to_weave<N>(4, chunks, outputs), right = room_to_weave<N>(5, chunks, inputs);
    const std::vector<Gradient<N>> gradients = {{left, right, outputs, inputs, grad_weight}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long packed) {
            Item* into = scratch<Item>(0, (size_t)count * outputs);
            scale_rows<X, N>(grad_y + first * outputs, count, outputs, drop_scale.of(first, count), into,
                             sums.of(chunk));
            layer(into, count,
                  [&](int r, int c, Vec sum) { store_partial<N>(grad_x + (first + r) * inputs + c, sum, inputs - c); });
            if (grad_weight == nullptr) return;
            pack_rows<N>(into, outputs, count, outputs, left, packed / N::K_STEP);
            pack_rows<N>(x + first * inputs, inputs, count, inputs, right, packed / N::K_STEP);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::K_STEP, fresh, threads); });
    whole_sums(sums, outputs, grad_bias, threads);
}

// Backward of `norm_linear`, added to the gradient of the residual.
template <class X, class N>
static void norm_linear_backward(const typename N::Item* grad_y, long rows, const Layer<N>& layer, const Norm<N>& norm,
                                 const typename X::Item* residual, typename X::Item* grad_x, float* grad_weight,
                                 float* grad_bias, float* grad_scale, float* grad_shift, int threads) {
    const int outputs = layer.inputs, inputs = layer.outputs, wide = round_up(inputs, LANES);
    const RowBlocks chunks(rows, outputs * sizeof(*grad_y), threads);
    Sums biases(grad_bias, round_up(outputs, LANES), chunks.count), norms(grad_scale, 2 * wide, chunks.count);
    const Packed<N> left = room_to_weave<N>(4, chunks, outputs), right = room_to_weave<N>(5, chunks, inputs);
    const std::vector<Gradient<N>> gradients = {{left, right, outputs, inputs, grad_weight}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long packed) {
            const auto* into = grad_y + first * outputs;
            scale_rows<N, N>(into, count, outputs, DropPathScale{nullptr, 1}.of(first, count), nullptr,
                             biases.of(chunk));
            back_through_norm<X, N>(layer, norm, into, first, count, residual, grad_x, norms.of(chunk));
            if (grad_weight == nullptr) return;
            pack_rows<N>(into, outputs, count, outputs, left, packed / N::K_STEP);
            pack_norm<N>(norm, first, count, right, packed / N::K_STEP);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::K_STEP, fresh, threads); });
    whole_sums(biases, outputs, grad_bias, threads);
    part_sums(norms, inputs, wide, grad_scale, grad_shift, threads);
}

// Backward of `mlp`. `layer2` is W2 transposed, from outputs to hidden; `layer1` is W1 transposed, from hidden to
// inputs.
template <class X, class N>
static void mlp_backward(const typename X::Item* grad_y, long rows, const DropPathScale& drop_scale,
                         const Layer<N>& layer2, const typename N::Item* hidden, const Layer<N>& layer1,
                         const Norm<N>& norm, typename X::Item* grad_x, float* grad_weight1, float* grad_bias1,
                         float* grad_weight2, float* grad_bias2, float* grad_scale, float* grad_shift, int threads) {
    typedef typename N::Item Item;
    const int depth = norm.depth, deep = layer1.inputs, wide = round_up(depth, LANES);
    const RowBlocks chunks(rows, deep * sizeof(Item), threads);
    Sums outer(grad_bias2, wide, chunks.count), inner(grad_bias1, round_up(deep, LANES), chunks.count);
    Sums norms(grad_scale, 2 * wide, chunks.count);
    const Packed<N> normed = room_to_weave<N>(4, chunks, depth), between = room_to_weave<N>(5, chunks, deep);
    const Packed<N> grad_answer = room_to_weave<N>(6, chunks, depth), grad_hidden = room_to_weave<N>(7, chunks, deep);
    const std::vector<Gradient<N>> gradients = {{grad_hidden, normed, deep, depth, grad_weight1},
                                                {grad_answer, between, depth, deep, grad_weight2}};
    chunks.each<N>(
        threads,
        [&](long chunk, long first, int count, long packed) {
            const long step = packed / N::K_STEP;
            Item *into = scratch<Item>(0, (size_t)count * depth), *rest = scratch<Item>(1, (size_t)count * deep);
            scale_rows<X, N>(grad_y + first * depth, count, depth, drop_scale.of(first, count), into, outer.of(chunk));
            pack_rows<N>(into, depth, count, depth, grad_answer, step);
            by_strips<N>(layer2, into, count, [&](int c, const float* sums) {
                const auto run = c + LANES <= deep ? gelu_back_strip<N, true> : gelu_back_strip<N, false>;
                run(hidden + first * deep + c, sums, count, deep, deep - c, rest + c, between.at(c / LANES, step),
                    grad_hidden.at(c / LANES, step), inner.of(chunk) + c);
            });
            back_through_norm<X, N>(layer1, norm, rest, first, count, grad_y, grad_x, norms.of(chunk));
            pack_norm<N>(norm, first, count, normed, step);
        },
        [&](long steps, bool fresh) { add_gradients<N>(gradients, steps, chunks.block / N::K_STEP, fresh, threads); });
    whole_sums(outer, depth, grad_bias2, threads);
    whole_sums(inner, deep, grad_bias1, threads);
    part_sums(norms, depth, wide, grad_scale, grad_shift, threads);
}

// Arguments of a norm (Norm of fused_train.h); z and scale are null without a backward pass.
struct SavedNormArgs {
    const float* weight;  // (depth)
    const float* bias;    // (depth)
    void* z;              // (rows, depth)
    float* scale;         // (rows)
};

// Arguments of drop path: a factor for each `span` rows, or null.
struct DropPathArgs {
    const float* factors;
    long span;
};

template <class N>
static Norm<N> norm_of(int depth, const SavedNormArgs& a) {
    return {depth, a.weight, a.bias, (typename N::Item*)a.z, a.scale};
}

template <class N>
static Layer<N> layer_of(const void* packed, const float* bias, int inputs, int outputs) {
    return {(const typename N::KPack*)packed, bias, inputs, outputs};
}

// Arguments of `norm_linear`.
struct NormLinearArgs {
    const void* x;  // (rows, inputs)
    long rows;
    int inputs;
    SavedNormArgs norm;
    float eps;
    const void* packed;
    const float* bias;
    int outputs;
    void* y;  // (rows, outputs)
    int threads;
};

template <class X, class N>
static void norm_linear(const NormLinearArgs& a) {
    norm_linear<X, N>((const typename X::Item*)a.x, a.rows, norm_of<N>(a.inputs, a.norm), a.eps,
                      layer_of<N>(a.packed, a.bias, a.inputs, a.outputs), (typename N::Item*)a.y, a.threads);
}

// Arguments of `norm_linear_backward`: `transposed` is W transposed and packed.
struct NormLinearBackwardArgs {
    const void* grad_y;  // (rows, outputs)
    long rows;
    int outputs, inputs;
    const void* transposed;
    SavedNormArgs norm;
    const void* residual;  // (rows, inputs), gradient that is added
    void* grad_x;          // (rows, inputs)
    float* grad_weight;    // (outputs, inputs), or null
    float* grad_bias;      // (outputs)
    float* grad_scale;     // (inputs), of the norm's weight
    float* grad_shift;     // (inputs), of the norm's bias
    int threads;
};

template <class X, class N>
static void norm_linear_backward(const NormLinearBackwardArgs& a) {
    norm_linear_backward<X, N>((const typename N::Item*)a.grad_y, a.rows,
                               layer_of<N>(a.transposed, nullptr, a.outputs, a.inputs), norm_of<N>(a.inputs, a.norm),
                               (const typename X::Item*)a.residual, (typename X::Item*)a.grad_x, a.grad_weight,
                               a.grad_bias, a.grad_scale, a.grad_shift, a.threads);
}

// Arguments of `linear_residual`.
struct LinearResidualArgs {
    const void* x;  // (rows, inputs)
    long rows;
    int inputs;
    const void* packed;
    const float* bias;
    int outputs;
    DropPathArgs drop_path;
    const void* residual;  // (rows, outputs)
    void* y;               // (rows, outputs)
    int threads;
};

template <class X, class N>
static void linear_residual(const LinearResidualArgs& a) {
    linear_residual<X, N>((const typename N::Item*)a.x, a.rows, layer_of<N>(a.packed, a.bias, a.inputs, a.outputs),
                          {a.drop_path.factors, a.drop_path.span}, (const typename X::Item*)a.residual,
                          (typename X::Item*)a.y, a.threads);
}

// Arguments of `linear_residual_backward`.
struct LinearResidualBackwardArgs {
    const void* grad_y;  // (rows, outputs)
    long rows;
    int outputs, inputs;
    DropPathArgs drop_path;
    const void* transposed;
    const void* x;       // (rows, inputs)
    void* grad_x;        // (rows, inputs)
    float* grad_weight;  // (outputs, inputs), or null
    float* grad_bias;    // (outputs)
    int threads;
};

template <class X, class N>
static void linear_residual_backward(const LinearResidualBackwardArgs& a) {
    linear_residual_backward<X, N>((const typename X::Item*)a.grad_y, a.rows, {a.drop_path.factors, a.drop_path.span},
                                   layer_of<N>(a.transposed, nullptr, a.outputs, a.inputs),
                                   (const typename N::Item*)a.x, (typename N::Item*)a.grad_x, a.grad_weight,
                                   a.grad_bias, a.threads);
}

// Arguments of `mlp`.
struct TrainMlpArgs {
    const void* x;  // (rows, depth)
    long rows;
    int depth;
    SavedNormArgs norm;
    float eps;
    const void* packed1;
    const float* bias1;
    int hidden;
    const void* packed2;
    const float* bias2;
    DropPathArgs drop_path;
    void* between;  // (rows, hidden), input of GELU; or null
    void* y;        // (rows, depth)
    int threads;
};

template <class X, class N>
static void mlp(const TrainMlpArgs& a) {
    mlp<X, N>((const typename X::Item*)a.x, a.rows, norm_of<N>(a.depth, a.norm), a.eps,
              layer_of<N>(a.packed1, a.bias1, a.depth, a.hidden), layer_of<N>(a.packed2, a.bias2, a.hidden, a.depth),
              {a.drop_path.factors, a.drop_path.span}, (typename N::Item*)a.between, (typename X::Item*)a.y, a.threads);
}

// Arguments of `mlp_backward`.
struct TrainMlpBackwardArgs {
    const void* grad_y;  // (rows, depth)
    long rows;
    int depth, hidden;
    DropPathArgs drop_path;
    const void* transposed2;
    const void* between;
    const void* transposed1;
    SavedNormArgs norm;
    void* grad_x;         // (rows, depth)
    float* grad_weight1;  // (hidden, depth), or null
    float* grad_bias1;    // (hidden)
    float* grad_weight2;  // (depth, hidden), or null
    float* grad_bias2;    // (depth)
    float* grad_scale;    // (depth), of the norm's weight
    float* grad_shift;    // (depth), of the norm's bias
    int threads;
};

template <class X, class N>
static void mlp_backward(const TrainMlpBackwardArgs& a) {
    mlp_backward<X, N>((const typename X::Item*)a.grad_y, a.rows, {a.drop_path.factors, a.drop_path.span},
                       layer_of<N>(a.transposed2, nullptr, a.depth, a.hidden), (const typename N::Item*)a.between,
                       layer_of<N>(a.transposed1, nullptr, a.hidden, a.depth), norm_of<N>(a.depth, a.norm),
                       (typename X::Item*)a.grad_x, a.grad_weight1, a.grad_bias1, a.grad_weight2, a.grad_bias2,
                       a.grad_scale, a.grad_shift, a.threads);
}

extern "C" {
int vitrail_lanes() { return LANES; }

SIZE_OF(NormLinearArgs)
SIZE_OF(NormLinearBackwardArgs)
SIZE_OF(LinearResidualArgs)
SIZE_OF(LinearResidualBackwardArgs)
SIZE_OF(TrainMlpArgs)
SIZE_OF(TrainMlpBackwardArgs)

#define FOR_BOTH(name, X, N)                                                                                     \
    void vitrail_pack_##name(const void* weights, int outputs, int inputs, int transposed, void* packed,         \
                             int threads) {                                                                      \
        pack<X, N>(weights, outputs, inputs, transposed, packed, threads);                                       \
    }                                                                                                            \
    void vitrail_norm_linear_##name(const NormLinearArgs& a) { norm_linear<X, N>(a); }                           \
    void vitrail_norm_linear_backward_##name(const NormLinearBackwardArgs& a) { norm_linear_backward<X, N>(a); } \
    void vitrail_linear_residual_##name(const LinearResidualArgs& a) { linear_residual<X, N>(a); }               \
    void vitrail_linear_residual_backward_##name(const LinearResidualBackwardArgs& a) {                          \
        linear_residual_backward<X, N>(a);                                                                       \
    }                                                                                                            \
    void vitrail_mlp_##name(const TrainMlpArgs& a) { mlp<X, N>(a); }                                             \
    void vitrail_mlp_backward_##name(const TrainMlpBackwardArgs& a) { mlp_backward<X, N>(a); }

FOR_BOTH(float32, Float32, Float32)
#if defined(__AVX512BF16__)
FOR_BOTH(bfloat16, BFloat16, BFloat16)
FOR_BOTH(mixed, Float32, BFloat16)  // residual, or weights to pack, in fp32, and GEMMs in bf16
#endif
}
