// Parallel loop over blocks of items, such as groups of tokens or images.

#pragma once

#include <algorithm>
#include <cstddef>

// `work(start, count)` for balanced blocks of items, each of at most `room` bytes of a core's cache.
template <class Work>
static void parallel_runs(long items, size_t bytes_of_item, size_t room, int threads, Work&& work) {
    const long fitting = std::max<long>(1, room / bytes_of_item) * threads;
    const long shares = std::max<long>(1, (items + fitting - 1) / fitting) * threads;
    const long run = (items + shares - 1) / shares;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long start = 0; start < items; start += run) work(start, (int)std::min(run, items - start));
}
