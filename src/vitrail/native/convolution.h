// Convolutions as implicit GEMM: a window is a few contiguous pieces of memory, so there is no im2col copy.
//
// Maps are (height, width, channels). In a padded map, the k pixels of a window in one row are contiguous: k * channels
// values, and k such pieces one row apart. So GEMM rows are pointers, and the k dimension runs over pieces.

#pragma once

#include <type_traits>

#include "arguments.h"
#include "gemm.h"

constexpr size_t PAGE = 4096, GAP = 64;  // bytes; rows of a band that are pages apart share sets of the L1
constexpr size_t CACHED = 128 << 10;     // bytes of weights that stay in a core's cache with everything else

// Layout of a window as a GEMM row.
struct Pieces {
    int count;   // pieces of a row (k)
    long apart;  // items from one piece to the next
    int steps;   // k-steps of a piece
};

// Microkernel: R rows times one panel of V vectors; `epilogue(vector, column, R)` gets R accumulators of LANES outputs.
// R is a constant there, so that they stay in registers.
template <class N, int R, int V, class Epilogue>
static inline void gathered_microkernel(const typename N::Item* const* rows, Pieces pieces,
                                        const typename N::KPack* panel, Epilogue&& epilogue) {
    typedef typename N::KPack KPack;
    Vec sum[V][R];
    for (int v = 0; v < V; v++)
        for (int r = 0; r < R; r++) sum[v][r] = Vec{};
    for (int piece = 0; piece < pieces.count; piece++) {
        const typename N::Item* at[R];
        for (int r = 0; r < R; r++) at[r] = rows[r] + piece * pieces.apart;
        for (int k = 0; k < pieces.steps; k++, panel += V * LANES) {
            KPack word[R];
            for (int r = 0; r < R; r++) std::memcpy(&word[r], at[r] + k * N::K_STEP, sizeof(KPack));
            for (int v = 0; v < V; v++)
                for (int r = 0; r < R; r++) sum[v][r] = N::add_product(sum[v][r], word[r], panel + v * LANES);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) epilogue(v, sum[v], std::integral_constant<int, R>());
}

// The microkernel for `count` <= R rows and `width` <= V vectors.
template <class N, int R, int V, class Epilogue>
static inline void gathered_microkernel_of(int count, int width, const typename N::Item* const* rows, Pieces pieces,
                                           const typename N::KPack* panel, Epilogue&& epilogue) {
    if constexpr (R > 1) {
        if (count < R) return gathered_microkernel_of<N, R - 1, V>(count, width, rows, pieces, panel, epilogue);
    }
    if constexpr (V > 1) {
        if (width < V) return gathered_microkernel_of<N, R, V - 1>(count, width, rows, pieces, panel, epilogue);
    }
    gathered_microkernel<N, R, V>(rows, pieces, panel, epilogue);
}

#if defined(HAS_AMX)
namespace amx {

// The gathered GEMM below on AMX. Rows are copied to a contiguous block: each is used for all outputs, so the copy is
// cheap relative to the GEMM.
template <class N, class Epilogue>
static inline void gathered_gemm(const typename N::Item* const* rows, int count, Pieces pieces,
                                 const typename N::KPack* packed, int outputs, int first, int last,
                                 Epilogue&& epilogue) {
    typedef typename N::Item Item;
    const int piece = pieces.steps * N::K_STEP, depth = pieces.count * piece;
    const int most = std::max(GRAIN, (256 << 10) / (int)(depth * sizeof(Item)) / GRAIN * GRAIN);
    const int blocks = (count + most - 1) / most, block = round_up((count + blocks - 1) / blocks, GRAIN);
    Item* copied = scratch<Item>(7, (size_t)block * depth);
    for (int begin = 0; begin < count; begin += block) {
        const int held = std::min(block, count - begin);
        for (int r = 0; r < held; r++)
            for (int i = 0; i < pieces.count; i++)
                std::memcpy(copied + (size_t)r * depth + i * piece, rows[begin + r] + i * pieces.apart,
                            piece * sizeof(Item));
        gemm_in_columns<N>(copied, depth, held, packed, Steps(pieces.count * pieces.steps), outputs, first, last,
                           [&](auto sums) {
                               for (int v = 0; v < sums.vectors; v++)
                                   epilogue(begin + sums.row, sums.rows, sums.output + v * SIDE, sums.column(v));
                           });
    }
}

}  // namespace amx
#endif

// `count` gathered rows times packed weights, outputs from panel `first` up to `last`. If the weights fit in cache, the
// outer loop is over rows, so that results are written in order; else over panels, so that each is fetched once.
// `epilogue(row, rows, output, column)` gets the sums of `rows` rows from `row` on, for LANES outputs from `output` on.
template <class N, class Epilogue>
static inline void gathered_gemm(const typename N::Item* const* rows, int count, Pieces pieces,
                                 const typename N::KPack* packed, int outputs, int first, int last,
                                 Epilogue&& epilogue) {
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::use_amx(count, pieces.count * pieces.steps))
            return amx::gathered_gemm<N>(rows, count, pieces, packed, outputs, first, last, epilogue);
    }
#endif
    const size_t panel = (size_t)PANEL * pieces.count * pieces.steps;
    const int block = (last - first) * panel * sizeof(typename N::KPack) > CACHED ? count : ROWS;
    for (int begin = 0; begin < count; begin += block) {
        for (int p = first; p < last; p++) {
            const int width = std::min(WIDE, (outputs - p * PANEL + LANES - 1) / LANES);
            for (int r = begin; r < std::min(count, begin + block); r += ROWS) {
                const int some = std::min(ROWS, count - r);
                auto emit = [&](int v, const Vec* column, auto held) {
                    epilogue(r, held, p * PANEL + v * LANES, column);
                };
                gathered_microkernel_of<N, ROWS, WIDE>(some, width, rows + r, pieces, packed + p * panel, emit);
            }
        }
    }
}

// relu(scale * x + shift) of `count` channels.
template <class X, class N>
static inline void activate(const typename X::Item* from, int count, const float* scale, const float* shift,
                            typename N::Item* to) {
    for (int c = 0; c < count; c += LANES)
        N::write(to + c, max(Vec{}, X::read(from + c) * load(scale + c) + load(shift + c)));
}

// The same values, cast to the compute dtype.
template <class X, class N>
static inline void copy_numbers(const typename X::Item* from, size_t count, typename N::Item* to) {
    if constexpr (std::is_same_v<X, N>) {
        std::memcpy(to, from, count * sizeof(*to));
    } else {
        for (; count >= LANES; count -= LANES, from += LANES, to += LANES) N::write(to, X::read(from));
        for (size_t i = 0; i < count; i++) to[i] = N::round(X::one(from[i]));
    }
}

// Arguments of a batch of maps.
struct MapArgs {
    const void* x;
    int batch, height, width, channels;
    int planar;          // whether x is (batch, channels, height, width), else (batch, height, width, channels)
    const float* scale;  // (batch, channels), followed by a ReLU; or null
    const float* shift;  // (batch, channels), or null
};

// Arguments of the windows of a convolution or a pooling: kernel size, stride, padding, and output size.
struct WindowArgs {
    int side, stride, top, left, tall, wide;
};

// An image (NCHW) or a feature map (NHWC), in X.
template <class X>
struct Map {
    typedef typename X::Item Item;
    const Item* at;
    int height, width, channels, planar;
    const float *scale, *shift;  // of each channel, followed by a ReLU; or null

    static Map of(const MapArgs& a) {
        return {(const Item*)a.x, a.height, a.width, a.channels, a.planar, a.scale, a.shift};
    }

    // Image `image` of a batch, with its own scale and shift.
    Map of(int image) const {
        const size_t first = (size_t)image * channels;
        const Item* own = at + first * height * width;
        if (scale == nullptr) return {own, height, width, channels, planar, nullptr, nullptr};
        return {own, height, width, channels, planar, scale + first, shift + first};
    }
};

// Positions of the windows: the first at (-top, -left), then `stride` apart.
struct Filters {
    int side, stride, top, left;
};

// Copy the part of row y that the windows at `places` positions cover, zero-padded outside the map.
template <class X, class N>
static void fill_line(const Map<X>& map, int y, const Filters& filters, int pixels, typename N::Item* to) {
    typedef typename N::Item Item;
    const int c = map.channels;
    if (y < 0 || y >= map.height) {
        std::fill(to, to + (size_t)pixels * c, Item(0));
        return;
    }
    const int before = std::min(filters.left, pixels), held = std::max(0, std::min(map.width, pixels - before));
    std::fill(to, to + (size_t)before * c, Item(0));
    std::fill(to + (size_t)(before + held) * c, to + (size_t)pixels * c, Item(0));
    to += (size_t)before * c;
    if (map.planar) {
        for (int plane = 0; plane < c; plane++) {
            Item* row = scratch<Item>(6, held);
            copy_numbers<X, N>(map.at + ((size_t)plane * map.height + y) * map.width, held, row);
            for (int x = 0; x < held; x++) to[(size_t)x * c + plane] = row[x];
        }
        return;
    }
    const typename X::Item* from = map.at + (size_t)y * map.width * c;
    if (map.scale == nullptr) {
        copy_numbers<X, N>(from, (size_t)held * c, to);
    } else {
        for (int x = 0; x < held; x++)
            activate<X, N>(from + (size_t)x * c, c, map.scale, map.shift, to + (size_t)x * c);
    }
}

// A convolution of a batch of images, with output (tall, wide, outputs) each.
template <class X, class N>
struct Convolution {
    Map<X> x;  // the first image
    int batch;
    Filters filters;
    const typename N::KPack* packed;
    int tall, wide, outputs;

    static Convolution of(const MapArgs& map, const WindowArgs& w, const void* panels, int outputs) {
        return {Map<X>::of(map), map.batch, {w.side, w.stride, w.top, w.left}, (const typename N::KPack*)panels, w.tall,
                w.wide,          outputs};
    }
};

// A block of output rows of one image.
struct Lines {
    int image, chunk;  // image index, and block index in it
    size_t first;      // first GEMM row in the whole batch
    int count;         // rows
};

// Parallelise a convolution over blocks of `lines` output rows and, if these are fewer than threads and `parted` allows
// it, also over outputs: `work(some, multiply)`, in which `multiply(epilogue)` runs the gathered GEMM of the block.
template <class X, class N, class Work>
static void parallel_lines(const Convolution<X, N>& conv, int lines, bool parted, int threads, Work&& work) {
    typedef typename N::Item Item;
    const Filters f = conv.filters;
    const int channels = conv.x.channels, tall = conv.tall, wide = conv.wide, all = panels(conv.outputs);
    const bool inside = f.top == 0 && f.left == 0 && (tall - 1) * f.stride + f.side <= conv.x.height &&
                        (wide - 1) * f.stride + f.side <= conv.x.width;  // no window reaches over the border
    const bool direct = std::is_same_v<X, N> && inside && f.side * channels % N::K_STEP == 0 &&
                        conv.x.scale == nullptr && !conv.x.planar;
    const int chunks = (tall + lines - 1) / lines, pixels = (wide - 1) * f.stride + f.side;
    const int groups = parted && conv.batch * chunks < 2 * threads ? std::min(all, 2 * threads) : 1;
    size_t line = (size_t)(direct ? conv.x.width : pixels) * channels;
    if (!direct && line * sizeof(Item) % PAGE == 0) line += GAP / sizeof(Item);
    const Pieces pieces = {f.side, (long)line, (f.side * channels + N::K_STEP - 1) / N::K_STEP};
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int item = 0; item < conv.batch * chunks * groups; item++) {
        const int group = item % groups, chunk = item / groups % chunks, image = item / groups / chunks;
        const int start = chunk * lines, some = std::min(lines, tall - start), count = some * wide;
        const Map<X> map = conv.x.of(image);
        const Item* from = nullptr;
        if constexpr (std::is_same_v<X, N>) from = map.at + (size_t)start * f.stride * line;
        if (!direct) {
            const int read = (some - 1) * f.stride + f.side;
            Item* band = scratch<Item>(0, read * line + N::K_STEP);
            for (int i = 0; i < read; i++) {
                Item* to = band + i * line;
                fill_line<X, N>(map, start * f.stride - f.top + i, f, pixels, to);
                std::fill(to + (size_t)pixels * channels, to + line, Item(0));  // the last k-step may read past a row
            }
            std::fill(band + read * line, band + read * line + N::K_STEP, Item(0));
            from = band;
        }
        const Item** rows = scratch<const Item*>(0, count);
        for (int i = 0; i < count; i++)
            rows[i] = from + (i / wide) * f.stride * line + (size_t)(i % wide) * f.stride * channels;
        work(Lines{image, chunk, ((size_t)image * tall + start) * wide, count}, [=](auto&& epilogue) {
            gathered_gemm<N>(rows, count, pieces, conv.packed, conv.outputs, all * group / groups,
                             all * (group + 1) / groups, epilogue);
        });
    }
}
