// Exports for native/quantized.py: linear layers with weights of four bits, looked up in tables of 16 values.

#include <algorithm>

#include "arguments.h"
#include "simd.h"

// Codes of four bits: byte i of a block of 32 columns has column i in its low half and column 16 + i in its high half.
constexpr int BLOCK = 32, HALF = 16;

// Arguments of packed weights: `tables_every` outputs share a table, `blocks_of_scale` blocks of a row a scale.
struct CodesArgs {
    const uint8_t* codes;  // (outputs, blocks, HALF)
    const float* tables;   // (tables, HALF)
    const float* scales;   // (outputs, scales of a row)
    long outputs, blocks, tables_every, blocks_of_scale;
};

struct Codes : CodesArgs {
    explicit Codes(const CodesArgs& a) : CodesArgs(a) {}
    const uint8_t* row(long r) const { return codes + r * blocks * HALF; }
    const float* table(long r) const { return tables + r / tables_every * HALF; }
    float scale(long r, long b) const {
        const long groups = (blocks + blocks_of_scale - 1) / blocks_of_scale;
        return scales[r * groups + b / blocks_of_scale];
    }
};

#if defined(__AVX512F__)
struct Table {
    __m512 values;
    explicit Table(const float* from) : values(_mm512_loadu_ps(from)) {}
    // The values of the low or high halves of 16 bytes.
    void look_up(const uint8_t* bytes, Vec* low, Vec* high) const {
        const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)bytes));
        *low = (Vec)_mm512_permutexvar_ps(wide, values);  // reads the four low bits of an index
        *high = (Vec)_mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), values);
    }
};
#elif defined(__AVX2__)
struct Table {
    __m256 first, second;
    explicit Table(const float* from) : first(_mm256_loadu_ps(from)), second(_mm256_loadu_ps(from + 8)) {}
    Vec pick(__m256i index) const {
        const __m256 a = _mm256_permutevar8x32_ps(first, index), b = _mm256_permutevar8x32_ps(second, index);
        return (Vec)_mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
    }
    void look_up(const uint8_t* bytes, Vec* low, Vec* high) const {
        for (int i = 0; i < 2; i++) {
            const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(bytes + 8 * i)));
            low[i] = pick(wide);
            high[i] = pick(_mm256_srli_epi32(wide, 4));
        }
    }
};
#else
struct Table {
    const float* values;
    explicit Table(const float* from) : values(from) {}
    void look_up(const uint8_t* bytes, Vec* low, Vec* high) const {
        for (int i = 0; i < HALF; i++) {
            low[i / LANES][i % LANES] = values[bytes[i] & 15];
            high[i / LANES][i % LANES] = values[bytes[i] >> 4];
        }
    }
};
#endif
constexpr int VECTORS = HALF / LANES;

// Arguments of `vitrail_lookup_dense`.
struct LookupDenseArgs {
    CodesArgs weights;
    float* dense;  // (outputs, blocks * BLOCK)
    int threads;
};

extern "C" void vitrail_lookup_dense(const LookupDenseArgs& a) {
    const Codes all(a.weights);
    const long outputs = all.outputs, blocks = all.blocks;
#pragma omp parallel for num_threads(a.threads)
    for (long r = 0; r < outputs; r++) {
        const Table table(all.table(r));
        for (long b = 0; b < blocks; b++) {
            Vec low[VECTORS], high[VECTORS];
            table.look_up(all.row(r) + b * HALF, low, high);
            const Vec scale = broadcast(all.scale(r, b));
            float* to = a.dense + (r * blocks + b) * BLOCK;
            for (int i = 0; i < VECTORS; i++) {
                store(to + i * LANES, low[i] * scale);
                store(to + HALF + i * LANES, high[i] * scale);
            }
        }
    }
}

// y = x W^T for at most TOGETHER rows of x, each of `blocks` times 32 columns: weights are read once.
constexpr int TOGETHER = 4;

template <int M>
static void product_of_row(const Codes& all, const float* x, long r, float* y) {
    const Table table(all.table(r));
    Vec total[M] = {};
    for (long start = 0; start < all.blocks; start += all.blocks_of_scale) {
        const long end = std::min(all.blocks, start + all.blocks_of_scale);
        Vec sums[M][2] = {};
        for (long b = start; b < end; b++) {
            Vec low[VECTORS], high[VECTORS];
            table.look_up(all.row(r) + b * HALF, low, high);
            for (int m = 0; m < M; m++) {
                const float* in = x + (m * all.blocks + b) * BLOCK;
                for (int i = 0; i < VECTORS; i++) {
                    sums[m][0] += load(in + i * LANES) * low[i];
                    sums[m][1] += load(in + HALF + i * LANES) * high[i];
                }
            }
        }
        const Vec scale = broadcast(all.scale(r, start));
        for (int m = 0; m < M; m++) total[m] += (sums[m][0] + sums[m][1]) * scale;
    }
    for (int m = 0; m < M; m++) {
        float sum = 0;
        for (int i = 0; i < LANES; i++) sum += total[m][i];
        y[m * all.outputs + r] = sum;
    }
}

// Arguments of `vitrail_lookup_linear`.
struct LookupLinearArgs {
    const float* x;  // (rows, blocks * BLOCK)
    long rows;
    CodesArgs weights;
    float* y;  // (rows, outputs)
    int threads;
};

extern "C" {
SIZE_OF(LookupDenseArgs)
SIZE_OF(LookupLinearArgs)

void vitrail_lookup_linear(const LookupLinearArgs& a) {
    const Codes all(a.weights);
    const long rows = a.rows, outputs = all.outputs;
#pragma omp parallel for num_threads(a.threads)
    for (long r = 0; r < outputs; r++) {
        for (long m = 0; m < rows; m += TOGETHER) {
            const float* from = a.x + m * all.blocks * BLOCK;
            float* to = a.y + m * outputs;
            switch (std::min<long>(rows - m, TOGETHER)) {
                case 4: product_of_row<4>(all, from, r, to); break;
                case 3: product_of_row<3>(all, from, r, to); break;
                case 2: product_of_row<2>(all, from, r, to); break;
                default: product_of_row<1>(all, from, r, to);
            }
        }
    }
}
}
