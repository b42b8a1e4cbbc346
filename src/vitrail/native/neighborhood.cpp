// Exports for native/neighborhood.py: neighborhood attention, with cells read in place.

#include "gemm_layer.h"
#include "neighborhood.h"
#include "parallel_for.h"

template <class N>
static void attend_strip(const StripPlan& plan, int strip, const Cells<N>* cells, long image, long head, int width,
                         float scale, const float* bias, typename N::Item* y, long row) {
    typedef typename N::Item Item;
    const int32_t* starts = plan.starts + 2 * strip;
    const int32_t* keys = plan.keys + starts[0];
    const int count = starts[2] - starts[0], room = room_for(count), steps = round_up(count, N::K_STEP) / N::K_STEP;
    auto* packed_keys = scratch<typename N::KPack>(0, (size_t)room_for(plan.longest) * width / N::K_STEP);
    auto* packed_values =
        scratch<typename N::KPack>(1, (size_t)round_up(plan.longest, N::K_STEP) * round_up(width, LANES));
    pack_lines<N>(count, width, [&](int j) { return cells[1].of(image, head, keys[j], width); }, packed_keys, room);
    pack_values<N>(count, width, [&](int j) { return cells[2].of(image, head, keys[j], width); }, packed_values);
    const Strip<N> packed = {packed_keys, room, packed_values, steps};
    const size_t line = round_up(plan.run, LANES);
    for (int b = starts[1]; b < starts[3]; b++) {
        const Block& block = plan.blocks[b];
        const Item* queries[ROWS];
        const float* addend[ROWS];
        Item* out[ROWS];
        for (int r = 0; r < block.count; r++) {
            const QuerySlot& seat = plan.seats[block.query + r];
            queries[r] = cells[0].of(image, head, seat.token, width);
            addend[r] = bias + seat.bias * line;
            out[r] = y + seat.token * row;
        }
        attend_run<N>(block.count, queries, addend, scale, packed, block.key, plan.run, width, out);
    }
}

// Arguments of `neighborhood`.
struct AttendNeighborsArgs {
    NeighborhoodArgs operands;
    void* y;  // (batch, tokens, heads, width)
    int threads;
};

template <class N>
static void neighborhood(const AttendNeighborsArgs& a) {
    typedef typename N::Item Item;
    const NeighborhoodArgs& o = a.operands;
    const StripPlan plan = strip_plan(o.strips);
    const int tokens = o.tokens, heads = o.heads, width = o.width;
    const float* bias = o.bias;
    const float scale = o.scale;
    const Item* padding = (const Item*)o.padding;
    const long row = (long)heads * width;
    const Cells<N> cells[3] = {{(const Item*)o.q, o.strides, nullptr},
                               {(const Item*)o.k, o.strides + 3, padding},
                               {(const Item*)o.v, o.strides + 6, padding == nullptr ? nullptr : padding + row}};
    const size_t table = (size_t)o.lines * round_up(plan.run, LANES);
#pragma omp parallel for schedule(dynamic, 4) num_threads(a.threads)
    for (long item = 0; item < (long)o.batch * plan.strips * heads; item++) {
        const long head = item % heads, strip = item / heads % plan.strips, image = item / heads / plan.strips;
        const int32_t* starts = plan.starts + 2 * strip;
        visit<N>(cells, 3, image, head, plan.keys + starts[0], starts[2] - starts[0], width);
        attend_strip<N>(plan, strip, cells, image, head, width, scale, bias + head * table,
                        (Item*)a.y + image * tokens * row + head * width, row);
    }
}

// Fused norm and qkv projection of rows of x, in blocks.
template <class X, class N>
static void project(const typename X::Item* x, int rows, float eps, const LinearWeights<N>& qkv, typename N::Item* to) {
    const int dim = qkv.inputs;
    const int chunk = std::max(ROWS, (64 << 10) / (int)(dim * sizeof(typename N::Item)) / ROWS * ROWS);
    for (long first = 0; first < rows; first += chunk)
        layer<X, N>(PLAIN, qkv, x + first * dim, (int)std::min<long>(chunk, rows - first), eps, nullptr,
                    to + first * 3 * dim);
}

// y = x + attention(norm(x) Wqkv + b) Wproj + b, blocked over images, so that only x and y leave a core's cache.
template <class N, class X = typename N::Residual>
static void branch(const typename X::Item* x_, int batch, int tokens, int heads, int width, float eps,
                   const LinearWeights<N>& qkv, const LinearWeights<N>& proj, const typename N::Item* padding,
                   float scale, const StripPlan& plan, const float* bias, int lines, typename X::Item* y_,
                   int threads) {
    typedef typename N::Item Item;
    const int dim = heads * width;
    const size_t image_size = (size_t)tokens * dim, table = (size_t)lines * round_up(plan.run, LANES);
    const int64_t strides[3] = {3L * dim * tokens, 3L * dim, width};
    parallel_runs(batch, 3 * image_size * sizeof(Item), 512 << 10, threads, [&](long first, int images) {
        const int rows = images * tokens;
        const typename X::Item* x = x_ + first * image_size;
        Item* made = scratch<Item>(6, 3 * images * image_size);
        Item* mixed = scratch<Item>(7, images * image_size);
        project<X, N>(x, rows, eps, qkv, made);
        const Cells<N> cells[3] = {
            {made, strides, nullptr}, {made + dim, strides, padding}, {made + 2 * dim, strides, padding + dim}};
        for (int image = 0; image < images; image++)
            for (int strip = 0; strip < plan.strips; strip++)
                for (int head = 0; head < heads; head++)
                    attend_strip<N>(plan, strip, cells, image, head, width, scale, bias + head * table,
                                    mixed + image * image_size + head * width, dim);
        layer<N, X>(ADD, proj, mixed, rows, NO_NORM, x, y_ + first * image_size);
    });
}

// Arguments of `branch`.
struct NeighborhoodBranchArgs {
    const void* x;  // (batch, tokens, heads, width)
    int batch, tokens, heads, width;
    float eps;  // of the norm
    WeightsArgs qkv, proj;
    const void* padding;  // (2, heads, width): key and value of padding; or null
    float scale;          // of the scores
    StripsArgs strips;
    const float* bias;  // (heads, lines, run in whole vectors)
    int lines;
    void* y;  // as x
    int threads;
};

template <class N>
static void branch(const NeighborhoodBranchArgs& a) {
    typedef typename N::Residual X;
    branch<N>((const typename X::Item*)a.x, a.batch, a.tokens, a.heads, a.width, a.eps, LinearWeights<N>::of(a.qkv),
              LinearWeights<N>::of(a.proj), (const typename N::Item*)a.padding, a.scale, strip_plan(a.strips), a.bias,
              a.lines, (typename X::Item*)a.y, a.threads);
}

extern "C" {
int vitrail_rows() { return ROWS; }

SIZE_OF(AttendNeighborsArgs)
SIZE_OF(NeighborhoodBranchArgs)

#define FOR(name, N)                                                                       \
    void vitrail_neighborhood_##name(const AttendNeighborsArgs& a) { neighborhood<N>(a); } \
    void vitrail_neighborhood_branch_##name(const NeighborhoodBranchArgs& a) { branch<N>(a); }

FOR(float32, Float32)
#if defined(__AVX512BF16__)
FOR(bfloat16, BFloat16)
#endif
}
