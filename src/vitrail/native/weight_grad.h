// dW = dY^T X with both operands packed in strips of LANES columns, k-interleaved over K_STEP rows. So the microkernel
// reads both sequentially, and a packed matrix can be the left or the right operand.

#pragma once

#include "packing.h"

// Rows are packed in whole chunks; AMX needs multiples of 16 k-steps.
#if defined(HAS_AMX)
constexpr int WHOLE = 2 * amx::SIDE;
#else
constexpr int WHOLE = 2;
#endif

template <class N>
struct Packed {
    typedef typename N::KPack KPack;
    KPack* words;
    long steps;  // capacity in k-steps along the rows

    static size_t size(long rows, int columns) { return (size_t)rows / N::K_STEP * round_up(columns, LANES); }
    KPack* at(int strip, long step) const { return words + (strip * steps + step) * LANES; }
};

// Pack `count` rows from k-step `first` on; partial k-steps and strips are zero-padded.
template <class N>
static inline void pack_rows(const typename N::Item* rows, long stride, int count, int columns, const Packed<N>& to,
                             long first) {
    const int steps = round_up(count, N::K_STEP) / N::K_STEP;
    const typename N::Item* zeros = nothing<typename N::Item>(columns);
    for (int c = 0; c < columns; c += LANES) {
        typename N::KPack* words = to.at(c / LANES, first);
        for (int k = 0; k < steps; k++, words += LANES) {
            const typename N::Item* of_step[N::K_STEP];
            for (int s = 0; s < N::K_STEP; s++)
                of_step[s] = k * N::K_STEP + s < count ? rows + (k * N::K_STEP + s) * stride : zeros;
            if (c + LANES <= columns) {
                N::interleave(of_step, c, words);
            } else {
                for (int i = 0; i < LANES; i++) words[i] = c + i < columns ? N::word(of_step, c + i) : 0;
            }
        }
    }
}

// Pack K_STEP rows from registers.
static inline void pack_vectors(const Vec* rows, float* to) { store(to, rows[0]); }

#if defined(__AVX512BF16__)
static inline void pack_vectors(const Vec* rows, uint32_t* to) {
    const __m512i first = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)rows[0]));
    const __m512i second = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)rows[1]));
    _mm512_storeu_si512(to, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
}
#endif

// Accumulators in registers: 8 x 3 of 32, or 4 x 3 of 16.
constexpr int TALL = LANES == 16 ? 8 : 4, BROAD = 3;

// One weight matrix: to (outputs, inputs) += left^T right.
template <class N>
struct Gradient {
    Packed<N> left, right;
    int outputs, inputs;
    float* to;  // null if not required
};

template <class N, int V>
static IN_REGISTERS void gradient_microkernel(const Gradient<N>& g, int output, int strip, long first, long last,
                                              bool fresh) {
    typedef typename N::KPack KPack;
    Vec sum[TALL][V];
    for (int r = 0; r < TALL; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    const KPack* row = g.left.at(output / LANES, first) + output % LANES;
    const KPack* column = g.right.at(strip, first);
    const long apart = g.right.steps * LANES;
    for (long k = first; k < last; k++, row += LANES, column += LANES)
        for (int r = 0; r < TALL; r++)
            for (int v = 0; v < V; v++) sum[r][v] = N::add_product(sum[r][v], row[r], column + v * apart);
    for (int r = 0; r < TALL; r++) {
        if (output + r >= g.outputs) break;
        for (int v = 0; v < V; v++) {
            const int c = (strip + v) * LANES, left = g.inputs - c;
            float* at = g.to + (size_t)(output + r) * g.inputs + c;
            store_partial<Float32>(at, fresh ? sum[r][v] : sum[r][v] + load_partial<Float32>(at, left), left);
        }
    }
}

#if defined(HAS_AMX)
namespace amx {

// Zero-pad a packed matrix to whole AMX tiles, and transpose the tiles of a left operand, whose columns are tile rows.
template <class N>
static void square_up(const Packed<N>& packed, int columns, long steps, bool left, int threads) {
    const long whole = (steps + SIDE - 1) / SIDE * SIDE;
#pragma omp parallel for num_threads(threads)
    for (int strip = 0; strip < (columns + SIDE - 1) / SIDE; strip++) {
        typename N::KPack* words = packed.at(strip, 0);
        std::fill(words + steps * SIDE, words + whole * SIDE, 0);
        for (long k = 0; k < whole && left; k += SIDE, words += SIDE * SIDE) {
            VecU32 square[SIDE];
            std::memcpy(square, words, sizeof(square));
            transpose(square);
            std::memcpy(words, square, sizeof(square));
        }
    }
}

template <class N>
static inline Operand squares_of(const Packed<N>& packed, int column, long step) {
    return {reinterpret_cast<const char*>(packed.at(column / SIDE, step)), BYTES, SIDE * BYTES, packed.steps * BYTES};
}

template <class N, int TALL, int BROAD>
static void add_squares(const Gradient<N>& g, int output, int input, long first, long last, bool fresh) {
    alignas(64) float sums[TALL * SIDE][BROAD * SIDE];
    const Operand left = squares_of(g.left, output, first), right = squares_of(g.right, input, first);
    multiply<N, TALL, BROAD>(left, right, (int)((last - first + SIDE - 1) / SIDE));
    write<0>(sums[0], BROAD * BYTES);
    if constexpr (BROAD == 2) write<1>(sums[0] + SIDE, BROAD * BYTES);
    if constexpr (TALL == 2) write<2>(sums[SIDE], BROAD * BYTES);
    if constexpr (TALL * BROAD == 4) write<3>(sums[SIDE] + SIDE, BROAD * BYTES);
    for (int r = 0; r < std::min(TALL * SIDE, g.outputs - output); r++)
        for (int c = input; c < std::min(input + BROAD * SIDE, g.inputs); c += LANES) {
            float* at = g.to + (size_t)(output + r) * g.inputs + c;
            const Vec sum = load(sums[r] + c - input);
            store_partial<Float32>(at, fresh ? sum : sum + load_partial<Float32>(at, g.inputs - c), g.inputs - c);
        }
}

// `add_gradients` below on AMX.
template <class N>
static void add_gradients(const std::vector<Gradient<N>>& gradients, long steps, long block, bool fresh, int threads) {
    constexpr int PIECE = 128;
    struct Item {
        const Gradient<N>* of;
        int output, input;
    };
    std::vector<Item> items;
    for (const Gradient<N>& g : gradients) {
        if (g.to == nullptr) continue;
        square_up(g.left, g.outputs, steps, true, threads);
        square_up(g.right, g.inputs, steps, false, threads);
        for (int input = 0; input < g.inputs; input += 2 * SIDE)
            for (int output = 0; output < g.outputs; output += PIECE) items.push_back({&g, output, input});
    }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t i = 0; i < items.size(); i++) {
        const auto [of, from, input] = items[i];
        const Registers registers(SIDE, SIDE);
        for (long first = 0; first < steps; first += block) {
            const long last = std::min(steps, first + block);
            const bool anew = fresh && first == 0, two = input + SIDE < of->inputs;
            for (int output = from; output < std::min(of->outputs, from + PIECE); output += 2 * SIDE) {
                const bool high = output + SIDE < of->outputs;
                if (high && two) add_squares<N, 2, 2>(*of, output, input, first, last, anew);
                if (high && !two) add_squares<N, 2, 1>(*of, output, input, first, last, anew);
                if (!high && two) add_squares<N, 1, 2>(*of, output, input, first, last, anew);
                if (!high && !two) add_squares<N, 1, 1>(*of, output, input, first, last, anew);
            }
        }
    }
}

}  // namespace amx
#endif

// Accumulate `steps` packed k-steps into the gradients; the first call has `fresh`. Rows are summed in blocks of
// `block` k-steps, and each weight belongs to one thread, so results do not depend on threads or on packing.
template <class N>
static void add_gradients(const std::vector<Gradient<N>>& gradients, long steps, long block, bool fresh, int threads) {
#if defined(HAS_AMX)
    if constexpr (N::AMX) {
        if (amx::GRANTED) return amx::add_gradients(gradients, steps, block, fresh, threads);
    }
#endif
    constexpr int PIECE = 128;  // outputs of one work item
    struct Item {
        const Gradient<N>* of;
        int output, strip;
    };
    std::vector<Item> items;
    for (const Gradient<N>& g : gradients)
        for (int strip = 0; g.to != nullptr && strip * LANES < g.inputs; strip += BROAD)
            for (int output = 0; output < g.outputs; output += PIECE) items.push_back({&g, output, strip});
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t i = 0; i < items.size(); i++) {
        const Gradient<N>& g = *items[i].of;
        const int strip = items[i].strip, strips = round_up(g.inputs, LANES) / LANES - strip;
        const int last = std::min(g.outputs, items[i].output + PIECE);
        for (long first = 0; first < steps; first += block) {
            const long end = std::min(steps, first + block);
            const bool anew = fresh && first == 0;
            for (int output = items[i].output; output < last; output += TALL) {
                if (strips >= 3) gradient_microkernel<N, 3>(g, output, strip, first, end, anew);
                if (strips == 2) gradient_microkernel<N, 2>(g, output, strip, first, end, anew);
                if (strips == 1) gradient_microkernel<N, 1>(g, output, strip, first, end, anew);
            }
        }
    }
}
