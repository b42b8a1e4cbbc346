// Exports for native/neighborhood_gradient.py: backward pass of neighborhood attention.

#include "neighborhood_gradient.h"
#include "reduce.h"

// Operands as in neighborhood.cpp, and output gradients (batch, tokens, heads, width).
template <class N>
struct Operands {
    Cells<N> cells[4];
    int batch, tokens, heads, width;
    float scale;
    const StripPlan* plan;
    int side;
    const float* bias;
    int lines;

    size_t table() const { return (size_t)lines * round_up(plan->run, LANES); }
};

// One head of one image. dK and dV are accumulated in fp32, since strips overlap in their keys.
template <class N>
static void part_head(const Operands<N>& o, long image, long head, typename N::Item* into, float* total,
                      float* padding) {
    Workspace<N>& workspace = Workspace<N>::mine();
    const StripPlan& m = *o.plan;
    const long wide = (long)o.heads * o.width;
    const int line = round_up(o.width, LANES);
    const size_t sums = (size_t)(o.tokens + 1) * line;
    const Head<N> h = {&workspace,
                       o.cells,
                       image,
                       head,
                       o.width,
                       o.tokens,
                       o.scale,
                       o.bias + head * o.table(),
                       total,
                       into,
                       3 * wide,
                       workspace.grad_keys.of(sums),
                       workspace.grad_values.of(sums)};
    std::fill_n(h.grad_keys, sums, 0.0f);
    std::fill_n(h.grad_values, sums, 0.0f);
    for (int strip = 0; strip < m.strips; strip++) part_strip<N>(h, m, o.side, strip);
    for (long cell = 0; cell < o.tokens; cell++) {
        for (int c = 0; c < o.width; c += LANES) {
            store_partial<N>(into + cell * h.row + wide + c, load(h.grad_keys + cell * line + c) * o.scale,
                             o.width - c);
            store_partial<N>(into + cell * h.row + 2 * wide + c, load(h.grad_values + cell * line + c), o.width - c);
        }
    }
    if (padding == nullptr) return;
    for (int c = 0; c < o.width; c++) {
        padding[head * o.width + c] += h.grad_keys[(size_t)o.tokens * line + c] * o.scale;
        padding[wide + head * o.width + c] += h.grad_values[(size_t)o.tokens * line + c];
    }
}

// Scatter-add bias gradients (heads, lines, run in whole vectors) into the gradient of the table, (rows, heads).
static void sum_table(const float* lines, int heads, int count, int run, const int64_t* offsets, int rows, float* table,
                      int threads) {
    const int line = round_up(run, LANES);
#pragma omp parallel for num_threads(threads)
    for (int head = 0; head < heads; head++) {
        for (int row = 0; row < rows; row++) table[(size_t)row * heads + head] = 0;
        for (long at = 0; at < count; at++)
            for (int j = 0; j < run; j++) {
                const int64_t row = offsets[at * run + j];
                if (row < rows) table[row * heads + head] += lines[(head * (long)count + at) * line + j];
            }
    }
}

constexpr int ENOUGH = 64;  // work items, for any number of threads

// dqkv (batch, tokens, 3, heads, width). offsets (lines, run): row of the bias table for each key of a line, `rows` if
// none. dtable (rows, heads) and dpadding (2, heads, width), or null if not required. A work item is one head of a
// block of images, with its own partial sums.
template <class N>
static void backward(const Operands<N>& o, const int64_t* offsets, int rows, void* dqkv, float* dtable, float* dpadding,
                     int threads) {
    const long wide = (long)o.heads * o.width, parts = std::min<long>(o.batch, (ENOUGH + o.heads - 1) / o.heads);
    Sums grad_bias(dtable, o.heads * o.table(), parts), grad_padding(dpadding, 2 * wide, parts);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long piece = 0; piece < parts * o.heads; piece++) {
        const long part = piece / o.heads, head = piece % o.heads, end = o.batch * (part + 1) / parts;
        float* total = dtable == nullptr ? nullptr : grad_bias.of(part) + head * o.table();
        for (long image = o.batch * part / parts; image < end; image++)
            part_head<N>(o, image, head, (typename N::Item*)dqkv + image * o.tokens * 3 * wide + head * o.width, total,
                         grad_padding.of(part));
    }
    grad_padding.add_up(dpadding, threads);
    if (dtable == nullptr) return;
    std::vector<float> lines(grad_bias.size);
    grad_bias.add_up(lines.data(), threads);
    sum_table(lines.data(), o.heads, o.lines, o.plan->run, offsets, rows, dtable, threads);
}

// Arguments of `backward`.
struct NeighborhoodBackwardArgs {
    NeighborhoodArgs operands;
    int side;                // keys in a row of a strip
    const int64_t* offsets;  // (lines, run): row of the bias table for each key of a line; `rows` if none
    int rows;                // of the bias table
    const void* dy;          // (batch, tokens, heads, width)
    void* dqkv;              // (batch, tokens, 3, heads, width)
    float* dtable;           // (rows, heads), or null
    float* dpadding;         // (2, heads, width), or null
    int threads;
};

template <class N>
static void backward(const NeighborhoodBackwardArgs& a) {
    typedef const typename N::Item* Items;
    const NeighborhoodArgs& o = a.operands;
    const StripPlan plan = strip_plan(o.strips);
    const int64_t wide = (int64_t)o.heads * o.width, plain[3] = {o.tokens * wide, wide, o.width};
    const Items padding = (Items)o.padding, values = padding == nullptr ? nullptr : padding + wide;
    const Operands<N> operands = {{{(Items)o.q, o.strides, nullptr},
                                   {(Items)o.k, o.strides + 3, padding},
                                   {(Items)o.v, o.strides + 6, values},
                                   {(Items)a.dy, plain, nullptr}},
                                  o.batch,
                                  o.tokens,
                                  o.heads,
                                  o.width,
                                  o.scale,
                                  &plan,
                                  a.side,
                                  o.bias,
                                  o.lines};
    backward<N>(operands, a.offsets, a.rows, a.dqkv, a.dtable, a.dpadding, a.threads);
}

extern "C" {
SIZE_OF(NeighborhoodBackwardArgs)

#define FOR(name, N) \
    void vitrail_neighborhood_backward_##name(const NeighborhoodBackwardArgs& a) { backward<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
