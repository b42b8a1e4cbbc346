// Sums over many rows, taken in the same order on any number of threads.

#pragma once

#include "lanes.h"

constexpr size_t MOST_CHUNKS = 64, LEAST_CHUNKS = 8, ROOM_OF_CHUNKS = 1 << 20;

// Return into how many chunks to cut `items`, of which each needs `size` sums of its own.
static inline long chunks_of(long items, size_t size) {
    const size_t fitting = ROOM_OF_CHUNKS / std::max<size_t>(1, size);
    return std::min<long>(items, std::max(LEAST_CHUNKS, std::min(MOST_CHUNKS, fitting)));
}

// Rows are cut into chunks, each of which adds up its own `size` numbers; `add_up` adds the chunks in order.
struct Sums {
    size_t size;
    long chunks;
    std::vector<float> parts;

    // Where the sums are not wanted, that is where `to` is null, there is room for none.
    Sums(const float* to, size_t size, long chunks) : size(to == nullptr ? 0 : size), chunks(chunks), parts(this->size * chunks) {}

    float* of(long chunk) { return size == 0 ? nullptr : parts.data() + size * chunk; }

    void add_up(float* to, int threads) const {
#pragma omp parallel for num_threads(threads)
        for (size_t i = 0; i < size; i++) {
            float sum = 0;
            for (long c = 0; c < chunks; c++) sum += parts[c * size + i];
            to[i] = sum;
        }
    }
};
