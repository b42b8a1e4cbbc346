// Deterministic sums over rows: the order does not depend on the number of threads.

#pragma once

#include "simd.h"

// Each chunk of rows has its own partial sums of `size` values; `add_up` adds the chunks in order.
struct Sums {
    size_t size;
    long chunks;
    std::vector<float> parts;

    // No buffer if the sums are not required (`to` is null).
    Sums(const float* to, size_t size, long chunks)
        : size(to == nullptr ? 0 : size), chunks(chunks), parts(this->size * chunks) {}

    float* of(long chunk) { return size == 0 ? nullptr : parts.data() + size * chunk; }

    void add_up(float* to, int threads) const {
        constexpr size_t block = 4096;  // values that stay in cache while all chunks are added
#pragma omp parallel for num_threads(threads)
        for (size_t first = 0; first < size; first += block) {
            const size_t last = std::min(size, first + block);
            std::fill(to + first, to + last, 0.0f);
            for (long c = 0; c < chunks; c++)
                for (size_t i = first; i < last; i++) to[i] += parts[c * size + i];
        }
    }
};
