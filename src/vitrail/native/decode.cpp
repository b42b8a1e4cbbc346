// Exports for native/decode.py: a decoding step of a Transformer decoder in one call, for any number of tokens.
//
// A decoder is a table of numbers and addresses ("program"), read in the order that native/decode.py writes. Buffers of
// tokens have rows of whole panels, zeros behind the channels.

#include "arguments.h"
#include "decode_attention.h"
#include "decode_int8.h"
#include "thread_team.h"

constexpr long ROW_CHUNK = 240;  // rows whose sums of a panel stay in L2

struct Reader {
    const int64_t* at;
    long number() { return *at++; }
    template <class T>
    const T* address() {
        return reinterpret_cast<const T*>(*at++);
    }
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

// Arguments of `vitrail_decode_step`: tokens of this call, and what was stored before. All rows are at position
// `start`.
struct DecodeStepArgs {
    const int64_t* program;  // numbers and addresses in the order of `Decoder`
    const int64_t* ids;      // (rows, tokens)
    long rows, tokens, start;
    float* cache;  // (layer, 2, slot, head, capacity, dim)
    long slots, capacity;
    const int32_t* slot_of;  // (rows, capacity): where the keys of each position are
    const int64_t* memory;   // (layers): address of (2, source, head, length, dim); or null
    long sources, longest;
    const int32_t* source_of;       // (rows), or null
    const int32_t* source_lengths;  // (sources), or null
    float* hidden;                  // (rows * tokens, width), output: after the last norm
    float* scores;                  // (rows or rows * tokens, words of whole panels), output; or null
    int every;                      // scores of every token, not of the last of each row
    int log_softmax;                // whether scores are normalised
    int threads;
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

// Rows in 16 bits, if a matrix takes integers. A few rows are rounded by each thread for itself, which costs less than
// to wait for another.
struct Quantized {
    uint8_t* rows;
    float* scales;
};

static Quantized quantize(Member& member, long depth, const float* x, long stride, long rows, uint8_t* shared) {
    constexpr long FEW = 4096;
    const long bytes = quantized_bytes(depth);
    const bool alone = rows * depth <= FEW;
    if (alone) shared = scratch<uint8_t>(4, rows * (bytes + 4) + 64);
    const Quantized to{shared, reinterpret_cast<float*>(shared + rows * bytes)};
    const auto round = [&](long row) { to.scales[row] = quantize_row(x + row * stride, depth, to.rows + row * bytes); };
    if (alone) {
        for (long row = 0; row < rows; row++) round(row);
    } else {
        member.each(rows, 4, round);
    }
    return to;
}

// finish(row, column, y) with vectors of y = x W^T + b.
template <class Finish>
static void apply(Member& member, const Matrix& m, const float* x, long stride, long rows, uint8_t* bytes,
                  Finish&& finish) {
    const long panels = m.panels(), items = 8 * member.team.threads;
    long chunk = std::min(rows, ROW_CHUNK);
    if (panels * ((rows + chunk - 1) / chunk) < items)
        chunk = std::min(chunk, std::max<long>(2 * ROWS, (rows * panels / items + ROWS - 1) / ROWS * ROWS));
    const long chunks = (rows + chunk - 1) / chunk;
    const long run = chunks > 1 ? 1 : std::max<long>(1, panels / (16 * member.team.threads));
    float* totals = scratch<float>(0, ROW_CHUNK * PANEL);
    const bool integers = integer_dots(m);
    const Quantized q = integers ? quantize(member, m.depth, x, stride, rows, bytes) : Quantized{};
    member.each(panels * chunks, run, [&](long item) {
        const long panel = item / chunks, first = item % chunks * chunk, count = std::min(chunk, rows - first);
        if (integers)
            integer_product(m, panel, q.rows + first * quantized_bytes(m.depth), q.scales + first, (int)count, totals);
        else
            panel_product(m, panel, x + first * stride, stride, (int)count, totals);
        for (long row = 0; row < count; row++)
            for (int v = 0; v < PANEL; v += LANES)
                finish(first + row, panel * PANEL + v,
                       load(totals + row * PANEL + v) + load(m.bias + panel * PANEL + v));
    });
}

class Step {
public:
    Step(const Decoder& d, const DecodeStepArgs& c, Member& member, float* workspace)
        : d(d), c(c), member(member), many(c.rows * c.tokens) {
        x = workspace;
        normed = x + many * d.width;
        wide = normed + many * d.width;
        bytes = reinterpret_cast<uint8_t*>(wide + many * widest(d));
    }

    // Floats of the workspace.
    static size_t room(const Decoder& d, const DecodeStepArgs& c) {
        const size_t bytes = quantized_bytes(std::max(widest(d), d.width)) + sizeof(float);
        return (size_t)c.rows * c.tokens * (2 * d.width + widest(d) + bytes / sizeof(float) + 1) + 64;
    }

    void run() {
        member.each(many, 16, [&](long m) { embed(m); });
        for (size_t layer = 0; layer < d.layers.size(); layer++) {
            const Layer& l = d.layers[layer];
            linear(l.qkv, before(l.norm1));
            self_attention((long)layer);
            add(l.proj, normed, l.norm1);
            if (c.memory != nullptr) {
                linear(l.q_cross, before(l.norm_cross));
                cross_attention((long)layer);
                add(l.proj_cross, normed, l.norm_cross);
            }
            const long stride = l.fc1.panels() * PANEL;
            apply(member, l.fc1, before(l.norm2), d.width, many, bytes, [&](long row, long column, Vec y) {
                store(wide + row * stride + column, activate(d.activation, y));
            });
            apply(member, l.fc2, wide, stride, many, bytes, [&](long row, long column, Vec y) {
                float* to = x + row * d.width + column;
                store(to, load(to) + y);
            });
            after(l.norm2);
        }
        member.each(many, 4,
                    [&](long m) { d.last.apply(x + m * d.width, d.channels, d.width, c.hidden + m * d.width); });
        if (c.scores != nullptr) score();
    }

private:
    const Decoder& d;
    const DecodeStepArgs& c;
    Member& member;
    const long many;
    float *x, *normed, *wide;
    uint8_t* bytes;  // quantized rows

    static long widest(const Decoder& d) {
        const long qkv = d.layers.empty() ? 0 : d.layers[0].qkv.panels() * PANEL;
        return std::max(d.hidden, qkv);
    }

    void embed(long m) {
        const float* word = d.words + c.ids[m] * d.channels;
        float* to = x + m * d.width;
        std::fill(to + d.channels, to + d.width, 0.0f);
        for (long i = 0; i < d.channels; i++) to[i] = word[i] * d.embedding_scale;
        if (d.positions == nullptr) return;
        const float* position = d.positions + (c.start + m % c.tokens) * d.channels;
        for (long i = 0; i < d.channels; i++) to[i] += position[i];
    }

    // The input of a branch: normalised, if norms come first.
    const float* before(const Norm& norm) {
        if (d.post_norm) return x;
        member.each(many, 4, [&](long m) { norm.apply(x + m * d.width, d.channels, d.width, normed + m * d.width); });
        return normed;
    }

    void after(const Norm& norm) {
        if (!d.post_norm) return;
        member.each(many, 4, [&](long m) { norm.apply(x + m * d.width, d.channels, d.width, x + m * d.width); });
    }

    void linear(const Matrix& w, const float* from) {
        const long stride = w.panels() * PANEL;
        apply(member, w, from, d.width, many, bytes,
              [&](long row, long column, Vec y) { store(wide + row * stride + column, y); });
    }

    void add(const Matrix& w, const float* from, const Norm& norm) {
        apply(member, w, from, d.width, many, bytes, [&](long row, long column, Vec y) {
            float* to = x + row * d.width + column;
            store(to, load(to) + y);
        });
        after(norm);
    }

    // A head of a row, padded with zeros; turned by the rotation of its position, times a factor.
    void take(const float* from, long position, bool turn, float factor, float* to) const {
        if (turn && d.rotation != nullptr) {
            const float* by = d.rotation + position * d.head_dim;  // cosine and sine by turns
            for (long i = 0; i < d.head_dim; i += 2) {
                to[i] = (from[i] * by[i] - from[i + 1] * by[i + 1]) * factor;
                to[i + 1] = (from[i] * by[i + 1] + from[i + 1] * by[i]) * factor;
            }
        } else {
            for (long i = 0; i < d.head_dim; i++) to[i] = from[i] * factor;
        }
        std::fill(to + d.head_dim, to + d.dim, 0.0f);
    }

    void self_attention(long layer) {
        const long stride = d.layers[layer].qkv.panels() * PANEL, head_size = c.capacity * d.dim;
        float* keys = c.cache + layer * 2 * c.slots * d.heads * head_size;
        float* values = keys + c.slots * d.heads * head_size;
        const float factor = 1.0f / std::sqrt((float)d.head_dim);
        float* scores = scratch<float>(1, c.capacity + 2 * LANES);
        float* q = scratch<float>(2, 2 * d.dim);
        member.each(c.rows * d.heads, 1, [&](long item) {
            const long row = item / d.heads, head = item % d.heads;
            const int32_t* slot_of = c.slot_of + row * c.capacity;
            const auto place = [&](const float* from, long p) {
                return from + (slot_of[p] * d.heads + head) * head_size + p * d.dim;
            };
            const auto key = [&](long p) { return place(keys, p); };
            const auto value = [&](long p) { return place(values, p); };
            for (long t = 0; t < c.tokens; t++) {
                const long m = row * c.tokens + t, position = c.start + t;
                const float* qkv = wide + m * stride + head * d.head_dim;
                take(qkv + d.channels, position, true, 1.0f, const_cast<float*>(key(position)));
                take(qkv + 2 * d.channels, position, false, 1.0f, const_cast<float*>(value(position)));
                take(qkv, position, true, factor, q);
                attend(q, position + 1, key, value, scores, m, head);
            }
        });
    }

    void cross_attention(long layer) {
        const long stride = d.layers[layer].q_cross.panels() * PANEL, head_size = c.longest * d.dim;
        const float* keys = reinterpret_cast<const float*>(c.memory[layer]);
        const float* values = keys + c.sources * d.heads * head_size;
        const float factor = 1.0f / std::sqrt((float)d.head_dim);
        float* scores = scratch<float>(1, c.longest + 2 * LANES);
        float* q = scratch<float>(2, 2 * d.dim);
        member.each(c.rows * d.heads, 1, [&](long item) {
            const long row = item / d.heads, head = item % d.heads, source = c.source_of[row];
            const float* first = keys + (source * d.heads + head) * head_size;
            const auto key = [&](long p) { return first + p * d.dim; };
            const auto value = [&](long p) { return first + (values - keys) + p * d.dim; };
            for (long t = 0; t < c.tokens; t++) {
                const long m = row * c.tokens + t;
                take(wide + m * stride + head * d.head_dim, 0, false, factor, q);
                attend(q, c.source_lengths[source], key, value, scores, m, head);
            }
        });
    }

    // Write the mixed values of a head to its channels of `normed`.
    template <class Key, class Value>
    void attend(const float* q, long count, Key&& key, Value&& value, float* scores, long m, long head) {
        float* out = scratch<float>(2, 2 * d.dim) + d.dim;
        attend_to(q, (int)d.dim, count, key, value, scores, out);
        std::copy(out, out + d.head_dim, normed + m * d.width + head * d.head_dim);
    }

    void score() {
        const long stride = d.head.panels() * PANEL, rows = c.every ? many : c.rows;
        const long skipped = c.every ? 1 : c.tokens;
        const float* from = c.hidden + (skipped - 1) * d.width;
        apply(member, d.head, from, skipped * d.width, rows, bytes,
              [&](long row, long column, Vec y) { store(c.scores + row * stride + column, y); });
        if (!c.log_softmax) return;
        member.each(rows, 1, [&](long row) { normalise(c.scores + row * stride); });
    }

    // In-place log-softmax of a row.
    void normalise(float* row) const {
        const long words = d.head.outputs, whole = words / LANES * LANES;
        Vec high = broadcast(-INFINITY);
        for (long i = 0; i < whole; i += LANES) high = max(load(row + i), high);
        float most = whole ? top(high) : -INFINITY;
        for (long i = whole; i < words; i++) most = std::max(most, row[i]);
        Vec sums = Vec{};
        double rest = 0;
        for (long i = 0; i < whole; i += LANES) sums += exponential(load(row + i) - most);
        for (long i = whole; i < words; i++) rest += std::exp(row[i] - most);
        const float shift = most + (float)std::log(add_up(sums) + rest);
        for (long i = 0; i < whole; i += LANES) store(row + i, load(row + i) - shift);
        for (long i = whole; i < words; i++) row[i] -= shift;
    }
};

extern "C" int vitrail_decode_panel() { return PANEL; }
extern "C" int vitrail_decode_lanes() { return LANES; }
extern "C" int vitrail_decode_k_step() { return INTEGER_DOTS ? K4 : 1; }  // of weights of eight and four bits

// One step of all layers. Returns 0 for an id outside the vocabulary.
extern "C" int vitrail_decode_step(const DecodeStepArgs& c) {
    const Decoder d(c.program);
    for (long i = 0; i < c.rows * c.tokens; i++)
        if (c.ids[i] < 0 || c.ids[i] >= d.vocabulary) return 0;
    float* workspace = scratch<float>(3, Step::room(d, c));
    run_team(c.threads, [&](Member& member) { Step(d, c, member, workspace).run(); });
    return 1;
}

struct Continuation {
    double total;
    int64_t word, row;
    bool before(const Continuation& other) const {
        if (total != other.total) return total > other.total;
        return word != other.word ? word < other.word : row < other.row;
    }
};

// Arguments of `vitrail_decode_best`.
struct DecodeBestArgs {
    const float* scores;  // (rows, words), log-probabilities
    long stride, words;
    const double* sums;     // (rows)
    const int64_t* firsts;  // (texts + 1): text t has the rows firsts[t] to firsts[t + 1]
    long texts;
    int count;
    double* totals;  // (texts, count)
    int64_t* best;   // (texts, count)
    int64_t* rows;   // (texts, count)
    int threads;
};

extern "C" {
SIZE_OF(DecodeStepArgs)
SIZE_OF(DecodeBestArgs)
}

// The best `count` continuations of each text: log-probabilities of its rows plus the sums of the rows. Ties are broken
// by word, then row; missing ones have a total of -inf.
extern "C" void vitrail_decode_best(const DecodeBestArgs& a) {
    const long words = a.words;
    const int count = a.count;
#pragma omp parallel for schedule(dynamic) num_threads(a.threads)
    for (long text = 0; text < a.texts; text++) {
        std::vector<Continuation> found(count, {-INFINITY, INT64_MAX, INT64_MAX});
        const Continuation& worst = found.back();
        for (int64_t row = a.firsts[text]; row < a.firsts[text + 1]; row++) {
            const float* from = a.scores + row * a.stride;
            const double sum = a.sums[row];
            // No word below this can be among the best; rounded down.
            float least = -INFINITY;
            const auto tighten = [&] { least = std::nextafter((float)(worst.total - sum), -INFINITY); };
            const auto offer = [&](long i) {
                const Continuation one{sum + from[i], i, row - a.firsts[text]};
                if (!(one.total > -INFINITY) || !one.before(worst)) return;
                int at = count - 1;
                for (; at > 0 && one.before(found[at - 1]); at--) found[at] = found[at - 1];
                found[at] = one;
                tighten();
            };
            tighten();
            long i = 0;
            for (; i + LANES <= words; i += LANES) {
                const VecI32 more = load(from + i) >= broadcast(least);
                bool any = false;
                for (int lane = 0; lane < LANES; lane++) any |= more[lane] != 0;
                if (!any) continue;
                for (int lane = 0; lane < LANES; lane++)
                    if (from[i + lane] >= least) offer(i + lane);
            }
            for (; i < words; i++) offer(i);
        }
        for (int i = 0; i < count; i++) {
            a.totals[text * count + i] = found[i].total;
            a.best[text * count + i] = found[i].word;
            a.rows[text * count + i] = found[i].row;
        }
    }
}

// Sum of a buffer's words, read by all threads: the bandwidth that a step can reach.
extern "C" long vitrail_decode_read(const int64_t* from, long words, int threads) {
    long sum = 0;
#pragma omp parallel for reduction(+ : sum) num_threads(threads)
    for (long i = 0; i < words; i++) sum += from[i];
    return sum;
}
