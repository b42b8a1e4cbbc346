// Sums over many rows, taken in the same order on any number of threads.

#pragma once

#include "simd.h"

// Rows are cut into chunks, each of which adds up its own `size` numbers; `add_up` adds the chunks in order.
struct Sums {
    size_t size;
    long chunks;
    std::vector<float> parts;

    // Where the sums are not wanted, that is where `to` is null, there is room for none.
    Sums(const float* to, size_t size, long chunks)
        : size(to == nullptr ? 0 : size), chunks(chunks), parts(this->size * chunks) {}

    float* of(long chunk) { return size == 0 ? nullptr : parts.data() + size * chunk; }

    void add_up(float* to, int threads) const {
        constexpr size_t block = 4096;  // numbers that stay in cache while chunk after chunk is added to them
#pragma omp parallel for num_threads(threads)
        for (size_t first = 0; first < size; first += block) {
            const size_t last = std::min(size, first + block);
            std::fill(to + first, to + last, 0.0f);
            for (long c = 0; c < chunks; c++)
                for (size_t i = first; i < last; i++) to[i] += parts[c * size + i];
        }
    }
};
