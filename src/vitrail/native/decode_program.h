// A decoder as a table of numbers and addresses, read in the order that native/decode.py writes, and the tokens of a call.

#pragma once

#include "decode_int8.h"

struct Reader {
    const int64_t* at;
    long number() { return *at++; }
    template <class T>
    const T* address() { return reinterpret_cast<const T*>(*at++); }
};

// Epsilon, whether the mean is subtracted (LayerNorm) or not (RMSNorm), weight and bias, which are padded with zeros;
// null for the identity.
struct Norm {
    const float* at;
    void apply(const float* x, long channels, long width, float* to) const {
        if (at == nullptr) {
            std::copy(x, x + width, to);
            return;
        }
        NormStats by = norm_stats_of<Float32>(x, (int)channels, at[0]);
        if (at[1] == 0) by = {0.0f, 1.0f / std::sqrt(mean_square(x, channels) + at[0])};
        const float *weight = at + 2, *bias = at + 2 + width;
        for (long c = 0; c < width; c += LANES)
            store(to + c, (load(x + c) - by.mean) * by.scale * load(weight + c) + load(bias + c));
    }
    static float mean_square(const float* x, long channels) {
        double sum = 0;
        for (long c = 0; c < channels; c++) sum += x[c] * x[c];
        return (float)(sum / channels);
    }
};

static Matrix read_matrix(Reader& from) {
    Matrix m;
    m.format = (Format)from.number();
    m.outputs = from.number();
    m.depth = from.number();
    m.columns = from.number();
    m.packed = from.address<uint8_t>();
    m.scales = from.address<float>();
    m.tables = from.address<float>();
    m.bias = from.address<float>();
    m.sums = from.address<int32_t>();
    return m;
}

struct Layer {
    Norm norm1, norm_cross, norm2;
    Matrix qkv, proj, q_cross, proj_cross, fc1, fc2;
    static Layer read(Reader& from, bool cross) {
        Layer l{};
        l.norm1.at = from.address<float>();
        l.qkv = read_matrix(from);
        l.proj = read_matrix(from);
        if (cross) {
            l.norm_cross.at = from.address<float>();
            l.q_cross = read_matrix(from);
            l.proj_cross = read_matrix(from);
        }
        l.norm2.at = from.address<float>();
        l.fc1 = read_matrix(from);
        l.fc2 = read_matrix(from);
        return l;
    }
};

enum Activation : int64_t { GELU = 0, GELU_TANH = 1, RELU = 2, SILU = 3, QUICK_GELU = 4 };

static inline Vec activate(Activation by, Vec x) {
    switch (by) {
        case GELU: return gelu(x);
        case GELU_TANH: return x / (1.0f + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));
        case RELU: return max_nan(x, Vec{});
        case SILU: return x / (1.0f + exponential(-x));
        default: return x / (1.0f + exponential(-1.702f * x));
    }
}

// Tokens of this call, and what was stored before. State of the rows, all of them at position `start`.
struct Call {
    const int64_t* ids;         // [rows][tokens]
    long rows, tokens, start;
    float* cache;               // [layer][2][slot][head][capacity][dim]
    long slots, capacity;
    const int32_t* slot_of;     // [rows][capacity]: where the keys of each position are
    const int64_t* memory;      // address of [2][source][head][length][dim] for each layer
    long sources, longest;
    const int32_t *source_of, *source_lengths;  // [rows], [sources]
    float* hidden;              // [rows * tokens][width], output: after the last norm
    float* scores;              // [rows or rows * tokens][words of whole panels], output; or null
    int every, log_softmax;     // scores of every token, not the last of each row; normalised
};

struct Decoder {
    long channels, width, heads, head_dim, dim, hidden, vocabulary, post_norm;
    float embedding_scale;
    Activation activation;
    const float *words, *positions, *rotation;
    std::vector<Layer> layers;
    Norm last;
    Matrix head;

    explicit Decoder(const int64_t* program) {
        Reader from{program};
        channels = from.number();
        heads = from.number();
        post_norm = from.number();
        activation = (Activation)from.number();
        vocabulary = from.number();
        words = from.address<float>();
        embedding_scale = *from.address<float>();
        positions = from.address<float>();
        rotation = from.address<float>();
        const bool cross = from.number();
        for (long count = from.number(); count > 0; count--) layers.push_back(Layer::read(from, cross));
        last.at = from.address<float>();
        head = read_matrix(from);
        width = round_up((int)channels, PANEL);
        head_dim = channels / heads;
        dim = round_up((int)head_dim, LANES);
        hidden = layers.empty() ? 0 : layers[0].fc1.panels() * PANEL;
    }
};
