// Block sizes: measured once per machine (native/block_sizes.py), by default from the L2 cache size of a core.
//
//     a GEMM:  rows (mc x K) times panels of PANEL outputs (K x PANEL), in blocks of kc k-steps
//
//              kc               PANEL
//           +------+--         +-----+
//       mc  |  A   |        kc |  B  |     B stays in L2 for all mc rows, A for all panels;
//           +------+--         +-----+     partial sums between two blocks are stored in fp32
//
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), section 4. Each output is one fp32
// sum along K in ascending order, which is stored and loaded between two blocks without rounding: results depend on
// neither block sizes nor the number of rows or threads.

#pragma once

#include <unistd.h>

#include "simd.h"

// Size of the L2 cache in bytes; a default if the system does not report it, or reports one shared by many cores.
static inline long& l2_bytes() {
    static long bytes = [] {
        long found = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
        found = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        return found <= 0 ? 1L << 20 : std::min(4L << 20, std::max(128L << 10, found));
    }();
    return bytes;
}

// Sizes in bytes: of a panel of one k-block, by values of a KPack (1 in fp32, 2 in bf16, 4 in int8); of a block of
// rows.
struct BlockSizes {
    long panel[5], rows;

    static BlockSizes of(long l2) { return {{l2 / 5, l2 / 5, l2 / 5, l2 / 5, l2 / 5}, l2 / 2}; }
};

static inline BlockSizes& block_sizes() {
    static BlockSizes sizes = BlockSizes::of(l2_bytes());
    return sizes;
}

// Set the sizes of this library; 0 keeps one. Returns that of a panel.
extern "C" long vitrail_set_blocks(int k_step, long panel, long rows) {
    if (panel > 0) block_sizes().panel[k_step] = panel;
    if (rows > 0) block_sizes().rows = rows;
    return block_sizes().panel[k_step];
}

// Maximum k-steps (words of a row) of a block.
static inline long most_steps(int k_step) { return std::max(64L, block_sizes().panel[k_step] / (PANEL * 4)); }

// Blocks along `steps`, which are even: block b ends at steps * (b + 1) / blocks.
static inline int k_blocks(int k_step, long steps) {
    const long most = most_steps(k_step);
    return (int)std::max(1L, (steps + most - 1) / most);
}

// Rows of a block, with `bytes` per row.
static inline long rows_in_cache(size_t bytes) {
    return block_sizes().rows / std::max(1L, std::min((long)bytes, 4 * most_steps(1)));
}
